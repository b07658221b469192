# VPC with two zones. The API is reached through CloudFront's VPC origin alone; nothing else comes in.

resource "aws_vpc" "main" {
  #checkov:skip=CKV2_AWS_11:flow logs cost more than they tell here; what the instances call is in the processes' own logs and metrics
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# Without rules: nothing may be put into the default group by accident.
resource "aws_default_security_group" "unused" {
  vpc_id = aws_vpc.main.id
}

# Also needed with NAT, and by the VPC origin: CloudFront asks for a gateway attached to the VPC, not for a route.
resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id            = aws_vpc.main.id
  availability_zone = local.availability_zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, count.index)

  tags = { Name = "${var.name}-public-${count.index}" }
}

resource "aws_subnet" "private" {
  count = 2

  vpc_id            = aws_vpc.main.id
  availability_zone = local.availability_zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, 8 + count.index)

  tags = { Name = "${var.name}-private-${count.index}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public_internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

locals {
  nat_gateways = var.egress == "nat" ? (var.nat_gateway_per_zone ? 2 : 1) : 0
  # Instances live where their way out is.
  instance_subnet_ids = var.egress == "nat" ? aws_subnet.private[*].id : aws_subnet.public[*].id
}

resource "aws_eip" "nat" {
  #checkov:skip=CKV2_AWS_19:belongs to a NAT gateway, not to an instance
  count = local.nat_gateways

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${count.index}" }
}

resource "aws_nat_gateway" "main" {
  count = local.nat_gateways

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id

  tags       = { Name = "${var.name}-${count.index}" }
  depends_on = [aws_internet_gateway.main]
}

resource "aws_route_table" "private" {
  count = 2

  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-private-${count.index}" }
}

resource "aws_route" "private_internet" {
  count = local.nat_gateways == 0 ? 0 : 2

  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.main[count.index % local.nat_gateways].id
}

resource "aws_route_table_association" "private" {
  count = 2

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}

# Free, and keeps pictures off the NAT gateway, which charges for each GB.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = concat([aws_route_table.public.id], aws_route_table.private[*].id)

  tags = { Name = "${var.name}-s3" }
}

# ---- who may talk to whom

# Looked up only when no id is given: an offline plan has no data sources.
data "aws_ec2_managed_prefix_list" "cloudfront" {
  count = var.cloudfront_prefix_list_id == null ? 1 : 0

  name = "com.amazonaws.global.cloudfront.origin-facing"
}

locals {
  cloudfront_prefix_list_id = var.cloudfront_prefix_list_id == null ? one(data.aws_ec2_managed_prefix_list.cloudfront[*].id) : var.cloudfront_prefix_list_id
}

resource "aws_security_group" "load_balancer" {
  name        = "${var.name}-load-balancer"
  description = "Internal load balancer: in from CloudFront, out to the API"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "load_balancer_from_cloudfront" {
  #checkov:skip=CKV_AWS_260:the source is CloudFront's prefix list, not 0.0.0.0/0
  security_group_id = aws_security_group.load_balancer.id
  description       = "CloudFront's origin-facing servers, through the VPC origin"
  prefix_list_id    = local.cloudfront_prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_egress_rule" "load_balancer_to_api" {
  for_each = { serve = local.api_port, health = local.admin_port }

  security_group_id            = aws_security_group.load_balancer.id
  description                  = "API: ${each.key}"
  referenced_security_group_id = aws_security_group.api.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_security_group" "api" {
  #checkov:skip=CKV2_AWS_5:attached by the launch template
  name        = "${var.name}-api"
  description = "API instances: in from the load balancer only"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "api_from_load_balancer" {
  for_each = { serve = local.api_port, health = local.admin_port }

  security_group_id            = aws_security_group.api.id
  description                  = "Load balancer: ${each.key}"
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_security_group" "worker" {
  #checkov:skip=CKV2_AWS_5:attached by the launch template
  name        = "${var.name}-worker"
  description = "Worker instances: nothing in"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_egress_rule" "instances_to_https" {
  for_each = { api = aws_security_group.api.id, worker = aws_security_group.worker.id }

  security_group_id = each.value
  description       = "AWS endpoints; the model's are in another region"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
