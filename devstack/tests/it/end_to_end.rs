//! Two hundred jobs through the real binaries, on the embedded services and on `MiniStack`.

use std::io::Cursor;

use devstack::bedrock::BedrockOptions;
use devstack::stack::LocalAwsKind;
use futures::StreamExt;
use image::{ImageFormat, ImageReader};

use crate::support::Live;

const JOBS: usize = 200;
const BATCH: usize = 100;
/// What the portal's users were promised: the picture is at least 30 % smaller than the model's PNG.
const MOST_OF_SOURCE: f64 = 0.70;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_on_the_embedded_services() {
    two_hundred_jobs(LocalAwsKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_on_ministack() {
    two_hundred_jobs(LocalAwsKind::Ministack).await;
}

async fn two_hundred_jobs(aws: LocalAwsKind) {
    // The pictures are painted in full: their sizes are compared.
    let live = Live::start(aws, BedrockOptions::default(), |options| options.workers = 2).await;
    let prompts: Vec<String> = (0..JOBS).map(|n| format!("picture {n} of a lesson")).collect();
    let mut ids = vec![];
    for batch in prompts.chunks(BATCH) {
        ids.extend(live.submit_batch(batch).await);
    }
    assert_eq!(ids.len(), JOBS);
    futures::stream::iter(ids.iter()).for_each_concurrent(16, |id| check(&live, id)).await;

    let totals = live.stack.bedrock().ledger().totals;
    assert_eq!((totals.paid, totals.paid_unanswered), (JOBS as u64, 0));
    assert!(prompts.iter().all(|prompt| live.paid(prompt) == 1));
    live.queues_become(0, 0).await;
    live.stop().await;
}

async fn check(live: &Live, id: &str) {
    let view = live.ended(id, "succeeded").await;
    let url = view["image"]["url"].as_str().unwrap();
    let (status, _, webp) = live.fetch(url).await;
    assert_eq!(status, 200, "{url}");
    let reader = ImageReader::new(Cursor::new(&webp)).with_guessed_format().unwrap();
    assert_eq!(reader.format(), Some(ImageFormat::WebP));
    assert_eq!(reader.into_dimensions().unwrap(), (1024, 1024));
    assert_eq!(view["image"]["bytes"], webp.len());

    let source = live.record(id).await.source.unwrap().bytes;
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    let share = webp.len() as f64 / source as f64;
    assert!(share <= MOST_OF_SOURCE, "{} of {source} bytes", webp.len());
    assert_eq!(live.fetch(url).await.1, "Hit from cloudfront");
}
