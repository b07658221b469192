# Queue, worker and API settings: what queue and code must agree on, and the ladder of time-outs.
# Each step of the ladder must end before the next one cuts it off; the validations below are that ladder.

# ---- queue

variable "queue_visibility_timeout_seconds" {
  description = "How long a delivery stays hidden. The worker gets the same number as its lease and extends it after a quarter."
  type        = number
  default     = 60

  validation {
    condition     = var.queue_visibility_timeout_seconds >= 20 && var.queue_visibility_timeout_seconds <= 43200 && floor(var.queue_visibility_timeout_seconds) == var.queue_visibility_timeout_seconds
    error_message = "queue_visibility_timeout_seconds must be a whole number, 20 to 43200: below, a heartbeat that needs its retries comes too late; above, SQS refuses."
  }
}

variable "queue_max_receive_count" {
  description = "Hand-overs before the dead-letter queue. The worker gets the same number and records 'failed' on the last."
  type        = number
  default     = 5

  validation {
    condition     = var.queue_max_receive_count >= 2 && var.queue_max_receive_count <= 1000 && floor(var.queue_max_receive_count) == var.queue_max_receive_count
    error_message = "queue_max_receive_count must be a whole number, 2 to 1000: with 1 a single restart dead-letters what was under way."
  }
}

variable "queue_retention_days" {
  description = "Days that an undelivered job waits. The API gets the same number. The dead-letter queue keeps 14 days."
  type        = number
  default     = 4

  validation {
    condition     = var.queue_retention_days >= 1 && var.queue_retention_days < 14 && floor(var.queue_retention_days) == var.queue_retention_days
    error_message = "queue_retention_days must be a whole number, 1 to 13, below the 14 of the dead-letter queue: a message keeps its age when it moves there."
  }
}

variable "receive_wait_seconds" {
  description = "Long poll of one receive."
  type        = number
  default     = 10

  validation {
    condition     = var.receive_wait_seconds >= 1 && var.receive_wait_seconds <= 20 && floor(var.receive_wait_seconds) == var.receive_wait_seconds
    error_message = "receive_wait_seconds must be a whole number, 1 to 20: SQS refuses more, and 0 is a short poll."
  }

  validation {
    condition     = var.receive_wait_seconds * 3 <= var.worker_shutdown_grace_seconds
    error_message = "receive_wait_seconds must be at most a third of worker_shutdown_grace_seconds: the poll under way is awaited at shutdown."
  }
}

# ---- model

variable "bedrock_model_id" {
  description = "Text-to-image model."
  type        = string
  default     = "stability.stable-image-core-v1:1"

  validation {
    condition     = contains(["stability.stable-image-core-v1:1", "stability.stable-image-ultra-v1:1", "stability.sd3-5-large-v1:0"], var.bedrock_model_id)
    error_message = "bedrock_model_id must be one of the three models that the worker speaks to: the Titan and Nova image models have reached their end of life."
  }
}

variable "bedrock_region" {
  description = "Region of the model, wherever queue and bucket are. Prompts and pictures cross regions."
  type        = string
  default     = "us-west-2"

  validation {
    condition     = var.bedrock_region == "us-west-2"
    error_message = "bedrock_region must be us-west-2, the one region of the Stability text-to-image models. When that changes, extend this check: aws bedrock list-foundation-models --by-output-modality IMAGE."
  }
}

variable "model_requests_per_minute" {
  description = "Quota of the model for the whole account: aws service-quotas list-service-quotas --service-code bedrock. The workers share it, and their number follows it. Less, where something else in the account calls the model."
  type        = number
  default     = 90

  validation {
    condition     = var.model_requests_per_minute >= 1 && var.model_requests_per_minute <= 100000 && floor(var.model_requests_per_minute) == var.model_requests_per_minute
    error_message = "model_requests_per_minute must be a whole number, 1 to 100000."
  }
}

variable "model_seconds_per_call" {
  description = "Usual length of a model call. With the quota it says how many calls can be in flight."
  type        = number
  default     = 5

  validation {
    condition     = var.model_seconds_per_call > 0
    error_message = "model_seconds_per_call must be above 0."
  }
}

variable "second_source" {
  description = "Another source of pictures that speaks OpenAI's POST /v1/images/generations: use = \"fallback\" while Bedrock is out of order, or \"alone\" instead of it. base_url with https, or with http inside your own network. Its key is put into the secret second_source_key_secret_arn by hand; has_key = false for a server without keys."
  type = object({
    use      = string
    base_url = string
    model    = string
    size     = optional(string, "1024x1024")
    dialect  = optional(string, "compatible")
    has_key  = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.second_source == null ? true : contains(["fallback", "alone"], var.second_source.use)
    error_message = "second_source.use must be \"fallback\" or \"alone\"."
  }

  validation {
    condition     = var.second_source == null ? true : can(regex("^https?://[A-Za-z0-9.:\\[\\]-]+(/[A-Za-z0-9/._~-]*)?$", var.second_source.base_url))
    error_message = "second_source.base_url must be a URL such as https://api.example.com or http://models.internal:8000/v1, without user, query and fragment."
  }

  validation {
    condition     = var.second_source == null ? true : can(regex("^[!-~]+$", var.second_source.model)) && can(regex("^[0-9]+x[0-9]+$", var.second_source.size))
    error_message = "second_source.model must be a name in visible ASCII, second_source.size WIDTHxHEIGHT."
  }

  validation {
    condition     = var.second_source == null ? true : contains(["compatible", "gpt-image"], var.second_source.dialect)
    error_message = "second_source.dialect must be \"compatible\" or \"gpt-image\"."
  }
}

# ---- the ladder, innermost step first

variable "model_timeout_seconds" {
  description = "Longest model call. A call that is given up may be charged all the same. Together with the grace below it fits the two minutes of a Spot notice."
  type        = number
  default     = 80

  validation {
    condition     = var.model_timeout_seconds >= 1 && floor(var.model_timeout_seconds) == var.model_timeout_seconds
    error_message = "model_timeout_seconds must be a whole number, 1 or more."
  }

  validation {
    condition     = var.model_timeout_seconds < var.worker_shutdown_grace_seconds
    error_message = "model_timeout_seconds must be below worker_shutdown_grace_seconds: a call under way at shutdown is paid for and must be able to end."
  }

  validation {
    condition     = var.model_timeout_seconds + 60 < var.attempt_timeout_seconds
    error_message = "model_timeout_seconds + 60 must be below attempt_timeout_seconds: an attempt also checkpoints, renders and publishes."
  }
}

variable "attempt_timeout_seconds" {
  description = "How long a claim on a job holds unless it is renewed."
  type        = number
  default     = 240

  validation {
    condition     = var.attempt_timeout_seconds <= 43200 && floor(var.attempt_timeout_seconds) == var.attempt_timeout_seconds
    error_message = "attempt_timeout_seconds must be a whole number, at most 43200, the 12 hours that SQS lets a delivery be held."
  }
}

variable "worker_shutdown_grace_seconds" {
  description = "Time to finish what is in flight once the worker is told to stop."
  type        = number
  default     = 95

  validation {
    condition     = floor(var.worker_shutdown_grace_seconds) == var.worker_shutdown_grace_seconds
    error_message = "worker_shutdown_grace_seconds must be a whole number."
  }

  validation {
    condition     = var.worker_shutdown_grace_seconds + 25 < var.worker_stop_timeout_seconds
    error_message = "worker_shutdown_grace_seconds + 25 must be below worker_stop_timeout_seconds: giving back takes 5 s and completing the termination hook 20 s, then systemd kills."
  }

  validation {
    condition     = var.worker_spot_percentage == 0 || var.worker_shutdown_grace_seconds + 25 <= 120
    error_message = "worker_shutdown_grace_seconds must be at most 95 with Spot instances, which end two minutes after the notice; or set worker_spot_percentage = 0."
  }
}

variable "worker_stop_timeout_seconds" {
  description = "TimeoutStopSec of the worker's unit: systemd kills after it."
  type        = number
  default     = 150

  validation {
    condition     = floor(var.worker_stop_timeout_seconds) == var.worker_stop_timeout_seconds
    error_message = "worker_stop_timeout_seconds must be a whole number."
  }

  validation {
    condition     = var.worker_stop_timeout_seconds + 30 <= var.termination_heartbeat_seconds
    error_message = "worker_stop_timeout_seconds + 30 must be at most termination_heartbeat_seconds: the group ends the instance when the hook runs out, and the worker notices the termination up to 5 s late."
  }
}

variable "termination_heartbeat_seconds" {
  description = "How long the group waits for a worker to drain."
  type        = number
  default     = 300

  validation {
    condition     = var.termination_heartbeat_seconds >= 30 && var.termination_heartbeat_seconds <= 7200 && floor(var.termination_heartbeat_seconds) == var.termination_heartbeat_seconds
    error_message = "termination_heartbeat_seconds must be a whole number, 30 to 7200."
  }
}

# ---- fleet of workers

variable "worker_slots" {
  description = "Deliveries in flight in one worker."
  type        = number
  default     = 4

  validation {
    condition     = var.worker_slots >= 2 && var.worker_slots <= 100 && floor(var.worker_slots) == var.worker_slots
    error_message = "worker_slots must be a whole number, 2 to 100: at least one for each CPU of the smallest instance type, and at 25 MB for a model's answer no more than 4 GB hold beside rendering."
  }
}

variable "batch_lane" {
  description = "Give batches a queue of their own: single jobs do not wait behind them, nor one tenant behind another's burst. Switch it off only while the queue of batches is empty: it goes with what is in it."
  type        = bool
  default     = false
}

variable "webhooks_enabled" {
  description = "Tell receivers of tenants that jobs have ended: a queue, and a unit on the API's instances that delivers. Where to is in the secret NAME/webhooks. Needs a way to the receivers from those instances: HTTPS egress is there."
  type        = bool
  default     = false
}

variable "worker_interactive_slots" {
  description = "With batch_lane: slots of a worker that batches never have. 0 is a quarter of worker_slots, at least 1."
  type        = number
  default     = 0

  validation {
    condition     = var.worker_interactive_slots >= 0 && var.worker_interactive_slots < var.worker_slots && floor(var.worker_interactive_slots) == var.worker_interactive_slots
    error_message = "worker_interactive_slots must be a whole number, 0 to worker_slots - 1: with all of them batches would never be done."
  }
}

variable "worker_tenant_slots" {
  description = "With batch_lane: slots of a worker that the single jobs of one tenant may have at a time. 0 is all but worker_interactive_slots."
  type        = number
  default     = 0

  validation {
    condition     = var.worker_tenant_slots >= 0 && var.worker_tenant_slots <= var.worker_slots && floor(var.worker_tenant_slots) == var.worker_tenant_slots
    error_message = "worker_tenant_slots must be a whole number, 0 to worker_slots."
  }
}

variable "worker_min_size" {
  description = "Workers that stay when there is nothing to do. With 0 the first job after a pause waits 3 to 4.5 minutes."
  type        = number
  default     = 0

  validation {
    condition     = var.worker_min_size >= 0 && var.worker_min_size <= local.worker_max_size && floor(var.worker_min_size) == var.worker_min_size
    error_message = "worker_min_size must be a whole number, 0 to worker_max_size."
  }
}

variable "worker_max_size" {
  description = "Most workers. Unset, as many as the model's quota keeps busy: model_requests_per_minute is the one number to change."
  type        = number
  default     = null

  validation {
    condition     = var.worker_max_size == null ? true : var.worker_max_size >= 1 && var.worker_max_size <= 500 && floor(var.worker_max_size) == var.worker_max_size
    error_message = "worker_max_size must be a whole number, 1 to 500."
  }

  validation {
    condition     = coalesce(var.worker_max_size, 1) * var.worker_slots <= local.slots_within_quota
    error_message = "worker_max_size * worker_slots must be at most 1.5 * model_requests_per_minute * model_seconds_per_call / 60 (or 4, whatever the quota), the calls that the quota lets be in flight and half as many jobs beside them: more workers make throttling worse. Raise the quota first."
  }
}

variable "picture_within_seconds" {
  description = "Promise: a picture within so many seconds of its submission, while workers run and the model's quota lasts. It sets worker_backlog_per_instance, the alarm on the oldest message, and what the API tells clients. Unset, there is no promise."
  type        = number
  default     = null

  validation {
    condition     = var.picture_within_seconds == null ? true : var.picture_within_seconds >= 2 * var.model_seconds_per_call && var.picture_within_seconds <= 86400 && floor(var.picture_within_seconds) == var.picture_within_seconds
    error_message = "picture_within_seconds must be a whole number, 2 * model_seconds_per_call to 86400: a picture takes a call of its own, and the slot that it gets is in the middle of another one."
  }
}

variable "worker_backlog_per_instance" {
  description = "Jobs, waiting and in flight, that one worker is there for. Smaller scales out earlier. Unset, it is what a worker does within picture_within_seconds; without that, 20."
  type        = number
  default     = null

  validation {
    condition     = var.worker_backlog_per_instance == null ? true : var.worker_backlog_per_instance >= var.worker_slots
    error_message = "worker_backlog_per_instance must be at least worker_slots: below, a busy worker would ask for another."
  }
}

variable "worker_scale_in_minutes" {
  description = "Minutes in a row with workers to spare before any goes."
  type        = number
  default     = 10

  validation {
    condition     = var.worker_scale_in_minutes >= 5 && var.worker_scale_in_minutes <= 60 && floor(var.worker_scale_in_minutes) == var.worker_scale_in_minutes
    error_message = "worker_scale_in_minutes must be a whole number, 5 to 60: a shorter pause stops workers that are needed again before they have paid for their start."
  }
}

variable "worker_instance_types" {
  description = "Instance types for workers, x86_64, 4 GB of memory or more, most wanted first. Several give Spot a choice."
  type        = list(string)
  default     = ["c6i.large", "c6a.large", "c7i.large", "m6i.large", "m6a.large", "c5.large"]

  validation {
    condition     = length(var.worker_instance_types) >= 1 && alltrue([for type in var.worker_instance_types : !can(regex("^(a1|[a-z]+[0-9]+g[a-z]*)\\.", type))])
    error_message = "worker_instance_types must be x86_64 types: a binary runs on one architecture, and names such as c7g, t4g or a1 are arm64."
  }
}

variable "worker_on_demand_base" {
  description = "Workers that are On-Demand whatever the rest is."
  type        = number
  default     = 1

  validation {
    condition     = var.worker_on_demand_base >= 0 && floor(var.worker_on_demand_base) == var.worker_on_demand_base
    error_message = "worker_on_demand_base must be a whole number, 0 or more."
  }
}

variable "worker_spot_percentage" {
  description = "Share of Spot among the workers above worker_on_demand_base."
  type        = number
  default     = 100

  validation {
    condition     = var.worker_spot_percentage >= 0 && var.worker_spot_percentage <= 100 && floor(var.worker_spot_percentage) == var.worker_spot_percentage
    error_message = "worker_spot_percentage must be a whole number, 0 to 100."
  }
}

# ---- API

variable "api_instance_type" {
  description = "Instance type of the API, x86_64."
  type        = string
  default     = "t3.small"

  validation {
    condition     = !can(regex("^(a1|[a-z]+[0-9]+g[a-z]*)\\.", var.api_instance_type))
    error_message = "api_instance_type must be an x86_64 type: a binary runs on one architecture, and names such as c7g, t4g or a1 are arm64."
  }
}

variable "api_min_size" {
  description = "Fewest API instances."
  type        = number
  default     = 2

  validation {
    condition     = var.api_min_size >= 1 && var.api_min_size <= var.api_max_size && floor(var.api_min_size) == var.api_min_size
    error_message = "api_min_size must be a whole number, 1 to api_max_size: it also keeps the queue's metrics alive, so it cannot be 0."
  }
}

variable "api_max_size" {
  description = "Most API instances. Rate limits are kept by each of them."
  type        = number
  default     = 4

  validation {
    condition     = floor(var.api_max_size) == var.api_max_size
    error_message = "api_max_size must be a whole number."
  }
}
