//! EC2 lifecycle: notices that the instance is going to end, and tells the Auto Scaling group when the drain is done.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::imds;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::error::ProvideErrorMetadata;
use tokio_util::sync::CancellationToken;

/// SIGTERM is not sent while a termination hook waits, so the metadata is polled this often.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
const TARGET_STATE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
const SPOT_ACTION: &str = "/latest/meta-data/spot/instance-action";
const INSTANCE_ID: &str = "/latest/meta-data/instance-id";
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(10);

/// The metadata service of this instance. Its address is the SDK's `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
#[derive(Debug, Clone)]
pub struct InstanceMetadata {
    client: imds::Client,
}

impl Default for InstanceMetadata {
    fn default() -> Self {
        Self { client: imds::Client::builder().build() }
    }
}

impl InstanceMetadata {
    /// Waits until the instance may take work: one in a warm pool may not. If it ends before that, cancels `stopping`
    /// and returns true, as [`watch`](Self::watch) does. Ends early when something else cancels it.
    pub async fn in_service(&self, stopping: &CancellationToken) -> bool {
        loop {
            let state = self.value(TARGET_STATE).await;
            let is_warm = state.as_deref().is_some_and(is_warm);
            if let Some(reason) = self.ending(state, false).await {
                stop(stopping, &reason);
                return true;
            }
            if !is_warm {
                return false;
            }
            tracing::info!("in a warm pool, not receiving");
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stopping.cancelled() => return false,
            }
        }
    }

    /// Cancels `stopping` when the instance is going to be terminated, reclaimed or put back into the warm pool, and
    /// returns true then: the group waits to be told that the drain is done. False when something else cancelled it.
    pub async fn watch(&self, stopping: &CancellationToken) -> bool {
        let mut was_in_service = false;
        while !stopping.is_cancelled() {
            let state = self.value(TARGET_STATE).await;
            was_in_service |= state.as_deref() == Some("InService");
            if let Some(reason) = self.ending(state, was_in_service).await {
                stop(stopping, &reason);
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stopping.cancelled() => {}
            }
        }
        false
    }

    /// An instance that has been in service is returned to the warm pool to be stopped or hibernated there. One that has
    /// not is being prepared for it, and its state could not be read at the start.
    async fn ending(&self, state: Option<String>, was_in_service: bool) -> Option<String> {
        if let Some(state) = state
            && (state.ends_with("Terminated") || (was_in_service && is_warm(&state)))
        {
            return Some(format!("target lifecycle state is {state}"));
        }
        let action = self.value(SPOT_ACTION).await?;
        Some(format!("Spot interruption: {action}"))
    }

    /// Returns the value, or `None` when it is not set (404) or cannot be read just now.
    async fn value(&self, path: &'static str) -> Option<String> {
        match self.client.get(path).await {
            Ok(value) => Some(value.as_ref().trim().to_owned()),
            Err(imds::client::error::ImdsError::ErrorResponse(response))
                if response.response().status().as_u16() == 404 =>
            {
                None
            }
            Err(error) => {
                tracing::warn!(%error, path, "instance metadata cannot be read");
                None
            }
        }
    }
}

fn stop(stopping: &CancellationToken, reason: &str) {
    tracing::warn!(reason, "the instance is going to end: stopping");
    stopping.cancel();
}

/// `Warmed:Terminated` is not: there is nothing left to wait for.
fn is_warm(state: &str) -> bool {
    state.starts_with("Warmed:") && !state.ends_with("Terminated")
}

/// The termination hook of the group this instance belongs to.
#[derive(Debug, Clone)]
pub struct TerminationHook {
    pub group: String,
    pub hook: String,
}

impl TerminationHook {
    /// Lets the group go on with the termination. Without this the instance lingers, billed, until the hook times out.
    ///
    /// # Errors
    /// The words of the service; there is nothing left to do then but to end.
    pub async fn complete(&self, config: &SdkConfig, metadata: &InstanceMetadata) -> Result<(), String> {
        let instance = metadata.value(INSTANCE_ID).await.ok_or("the instance id cannot be read")?;
        let settings = aws_sdk_autoscaling::config::Builder::from(config)
            .timeout_config(service::aws::timeouts(COMPLETE_TIMEOUT, COMPLETE_TIMEOUT * 2))
            .retry_config(service::aws::retries(3))
            .build();
        Client::from_conf(settings)
            .complete_lifecycle_action()
            .auto_scaling_group_name(&self.group)
            .lifecycle_hook_name(&self.hook)
            .instance_id(instance)
            .lifecycle_action_result("CONTINUE")
            .send()
            .await
            .map_err(|error| service::detail::answer(error.code(), error.message(), &error))?;
        tracing::info!(group = %self.group, hook = %self.hook, "termination hook completed");
        Ok(())
    }
}
