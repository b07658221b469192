# The bucket of pictures, records and sources: private, encrypted, versioned, and with rules that really free storage.

resource "aws_s3_bucket" "images" {
  #checkov:skip=CKV_AWS_18:CloudFront is the only reader from outside; a log of each request would need a second bucket that nobody reads
  #checkov:skip=CKV_AWS_144:a picture can be made again from its prompt; a copy in a second region would double the storage
  #checkov:skip=CKV_AWS_145:AES-256 with the keys of S3 is what is asked for; a KMS key adds a price to each request
  #checkov:skip=CKV2_AWS_62:nothing waits for events; a job's record tells its state
  # AWS adds 26 characters, which makes the name unique in the world.
  bucket_prefix = "${var.s3_bucket_prefix}-"
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_ownership_controls" "images" {
  bucket = aws_s3_bucket.images.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "images" {
  bucket = aws_s3_bucket.images.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "images" {
  bucket = aws_s3_bucket.images.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_versioning" "images" {
  bucket = aws_s3_bucket.images.id

  versioning_configuration {
    status = "Enabled"
  }
}

locals {
  # Pictures alone: records and sources stay private behind any path. No ListBucket, with which the root of the
  # distribution would list the bucket; a missing picture is 403 for that, and error caching is off (cdn.tf).
  cloudfront_reads_images = {
    Sid       = "CloudFrontReadsImages"
    Effect    = "Allow"
    Principal = { Service = "cloudfront.amazonaws.com" }
    Action    = "s3:GetObject"
    Resource  = "${aws_s3_bucket.images.arn}/images/*"
    Condition = { StringEquals = { "AWS:SourceArn" = aws_cloudfront_distribution.main.arn } }
  }
}

resource "aws_s3_bucket_policy" "images" {
  bucket = aws_s3_bucket.images.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.cloudfront_reads_images,
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.images.arn, "${aws_s3_bucket.images.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.images]
}

locals {
  # The seed's numbers are the length of each stage; a rule's days count from creation: 90, 270, 635.
  ia_day         = var.image_lifecycle_ia_days
  glacier_day    = local.ia_day + var.image_lifecycle_glacier_days
  expiration_day = local.glacier_day + var.image_lifecycle_expiration_days
}

# Filters are positive only, there is no "unless tagged", and where rules overlap deletion wins. So the one rule that expires
# pictures asks for the tag that every picture is written with; retagging it retention=permanent takes it out.
resource "aws_s3_bucket_lifecycle_configuration" "images" {
  bucket = aws_s3_bucket.images.id
  # Said aloud: objects below 128 KB stay in STANDARD. Both other classes bill 128 KB at least, and with the price of the
  # transition a smaller picture would cost more than it saves (docs/cost.md).
  transition_default_minimum_object_size = "all_storage_classes_128K"

  rule {
    id     = "images"
    status = "Enabled"

    filter {
      and {
        prefix = "images/"
        tags   = { retention = "standard" }
      }
    }

    transition {
      days          = local.ia_day
      storage_class = "STANDARD_IA"
    }

    # GLACIER_IR answers at once. From GLACIER a read is an error until somebody restores the object.
    transition {
      days          = local.glacier_day
      storage_class = "GLACIER_IR"
    }

    # With versioning this only hides the picture; the next rule deletes.
    expiration {
      days = local.expiration_day
    }
  }

  # Retagging makes no new version; a version is noncurrent because the picture was deleted or written anew.
  rule {
    id     = "images-noncurrent"
    status = "Enabled"

    filter {
      prefix = "images/"
    }

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_version_days
    }
  }

  # As long as the pictures: a client that polls an old job still gets its URL. Each is written three times.
  rule {
    id     = "records"
    status = "Enabled"

    filter {
      prefix = "records/"
    }

    expiration {
      days = local.expiration_day
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }

  # The lists of jobs, as long as what they lead to.
  rule {
    id     = "index"
    status = "Enabled"

    filter {
      prefix = "index/"
    }

    expiration {
      days = local.expiration_day
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }

  # Longer than the dead-letter queue keeps a job: its redrive finds the source that is paid for.
  rule {
    id     = "sources"
    status = "Enabled"

    filter {
      prefix = "sources/"
    }

    expiration {
      days = var.source_retention_days
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }

  # The reconciler's ledger is written with each pass, the timetable of the model's quota for every few calls. Nothing under audit/ is ever deleted.
  rule {
    id     = "control"
    status = "Enabled"

    filter {
      prefix = "control/"
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }

  # Neither is allowed in a rule with a tag, nor a number of days beside the markers.
  rule {
    id     = "leftovers"
    status = "Enabled"

    filter {}

    expiration {
      expired_object_delete_marker = true
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  depends_on = [aws_s3_bucket_versioning.images]
}

# Request metrics do not exist without this; alarms and widgets name it as FilterId.
resource "aws_s3_bucket_metric" "all" {
  bucket = aws_s3_bucket.images.id
  name   = "all"
}
