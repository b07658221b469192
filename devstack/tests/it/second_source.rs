//! The whole system with another source of pictures than Bedrock: asked alone, and while Bedrock is out of order.

use devstack::bedrock::{BedrockOptions, BedrockStandIn, Detail, Fault, FaultPlan};
use devstack::stack::LocalAwsKind;
use serde_json::json;

use crate::support::Live;

const MODEL: &str = "flux-2";

fn cheap() -> BedrockOptions {
    BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() }
}

/// Starts a stack and another source, which its workers know as `setting`.
async fn start(setting: &str, bedrock: BedrockOptions) -> (Live, BedrockStandIn) {
    let other = BedrockStandIn::start("127.0.0.1:0".parse().unwrap(), cheap()).await.unwrap();
    let env = [
        (setting, "openai".to_owned()),
        ("OPENAI_BASE_URL", format!("http://{}/v1", other.local_addr())),
        ("OPENAI_MODEL", MODEL.to_owned()),
        ("OPENAI_API_KEY", "sk-0123456789abcdef".to_owned()),
    ];
    let live = Live::start(LocalAwsKind::Embedded, bedrock, |options| {
        options.workers = 2;
        options.worker_env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    });
    (live.await, other)
}

/// Returns the model that the picture of a job names, having compared it with the record.
async fn made_by(live: &Live, id: &str) -> String {
    let view = live.ended(id, "succeeded").await;
    assert_eq!(view["alt_text"], "A picture of a lesson");
    let (status, _, webp) = live.fetch(view["image"]["url"].as_str().unwrap()).await;
    assert_eq!((status.as_u16(), view["image"]["bytes"].as_u64()), (200, Some(webp.len() as u64)));
    let file = String::from_utf8_lossy(&webp).into_owned();
    assert!(file.contains("digitalsourcetype/trainedAlgorithmicMedia"));
    let model = live.record(id).await.source.unwrap().model;
    assert!(file.contains(&format!("<Iptc4xmpExt:AISystemUsed>{model}<")), "the picture does not name {model}");
    model
}

async fn submit(live: &Live, from: usize, jobs: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in from..from + jobs {
        let body = json!({ "prompt": format!("picture {n} of a lesson"), "alt_text": "A picture of a lesson" });
        ids.push(live.submit(body).await);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_can_do_without_bedrock() {
    let (live, other) = start("MODEL_SOURCE", cheap()).await;
    for id in submit(&live, 0, 20).await {
        assert_eq!(made_by(&live, &id).await, MODEL);
    }
    let totals = other.ledger().totals;
    assert_eq!((totals.calls, totals.paid), (20, 20));
    assert_eq!(live.stack.bedrock().ledger().totals.calls, 0);
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_elsewhere_while_bedrock_is_down_and_are_paid_for_once() {
    let faults = FaultPlan { outage: Some(Fault::Unavailable), ..FaultPlan::default() };
    let (live, other) = start("MODEL_FALLBACK", BedrockOptions { faults, ..cheap() }).await;
    for id in submit(&live, 0, 12).await {
        assert_eq!(made_by(&live, &id).await, MODEL);
    }
    live.stack.bedrock().set_faults(FaultPlan::default()).unwrap();
    // Each worker finds out by itself that Bedrock is back, within a minute.
    let mut jobs = 12;
    while live.stack.bedrock().ledger().totals.paid == 0 {
        for id in submit(&live, jobs, 2).await {
            made_by(&live, &id).await;
        }
        jobs += 2;
        assert!(jobs < 2000, "Bedrock is not asked again");
    }
    let (first, second) = (live.stack.bedrock().ledger(), other.ledger());
    assert_eq!(first.totals.paid + second.totals.paid, jobs as u64);
    for n in 0..jobs {
        let prompt = format!("picture {n} of a lesson");
        let paid = [&first, &second].map(|ledger| ledger.by_prompt.get(&prompt).map_or(0, |entry| entry.paid));
        assert_eq!(paid.iter().sum::<u64>(), 1, "{prompt}");
    }
    live.queues_become(0, 0).await;
    live.stop().await;
}
