//! The good end: a picture, a record that tells about it, one paid call, nothing left in the queue.

use job::{ImageFormat, RenditionSpec, Status};
use worker::consumer::Drained;

use crate::support::World;

#[tokio::test(start_paused = true)]
async fn a_job_becomes_a_picture_and_a_record() {
    let world = World::new();
    let worker = world.start();
    let job = world.submit("a red fox");
    let record = world.status(&job, Status::Succeeded).await;
    world.settled().await;

    let image = record.image.unwrap();
    let webp = world.store.image(&job.id).unwrap();
    assert_eq!((image.width, image.height, image.bytes), (1024, 1024, webp.len() as u64));
    assert_eq!(image.key, format!("images/{}.webp", job.id));
    assert_eq!(image.content_type, "image/webp");
    assert_eq!(image::guess_format(&webp).unwrap(), image::ImageFormat::WebP);
    assert_eq!((record.attempts, record.claim, record.error), (1, None, None));
    let source = record.source.unwrap();
    assert_eq!((source.model.as_str(), source.generation), ("scripted", 1));
    assert_eq!(source.seed, job.model_seed(u32::MAX));
    let file = String::from_utf8_lossy(&webp).into_owned();
    let made_at = format!("<xmp:CreateDate>{}<", source.made_at.unwrap());
    for said in ["digitalsourcetype/trainedAlgorithmicMedia", "<Iptc4xmpExt:AISystemUsed>scripted<", &made_at] {
        assert!(file.contains(said), "the picture does not say {said}");
    }
    assert!(!file.contains("red fox"), "the prompt is in the picture");
    assert!(record.timings.upload_seconds.is_some() && record.timings.render_seconds.is_some());
    assert_eq!(world.model.paid("a red fox"), 1);
    assert_eq!(worker.stop().await, Drained::Clean);
}

#[tokio::test(start_paused = true)]
async fn a_client_sees_each_state_in_order_and_the_image_before_its_url() {
    let world = World::new();
    let worker = world.start();
    let job = world.submit_with("a red fox", &[RenditionSpec::new(256, ImageFormat::Webp).unwrap()]);
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!(world.store.told_too_early(), [""; 0]);
    let states: Vec<_> = world.store.history().iter().map(|record| record.status).collect();
    assert_eq!(states, [Status::Generating, Status::Processing, Status::Succeeded]);
    assert!(world.store.history().iter().all(|record| record.image.is_some() == (record.status == Status::Succeeded)));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alternative_text_is_in_the_record_as_it_was_sent_and_not_in_the_picture() {
    let world = World::new();
    let worker = world.start();
    let mut job = world.job("a red fox");
    job.spec = job.spec.with_alt_text(Some("Ein Fuchs – 狐 – im \"Schnee\"".into())).unwrap();
    world.queue.send(job.encode());
    let record = world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!(record.alt_text.as_deref(), job.spec.alt_text());
    // An immutable file could never get another text.
    assert!(!String::from_utf8_lossy(&world.store.image(&job.id).unwrap()).contains("Schnee"));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_becomes_every_rendition_it_asks_for() {
    let world = World::new();
    let worker = world.start();
    let specs = [(256, ImageFormat::Webp), (512, ImageFormat::Avif)].map(|(w, f)| RenditionSpec::new(w, f).unwrap());
    let job = world.submit_with("a red fox", &specs);
    let record = world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!(record.image.unwrap().key, format!("images/{}.webp", job.id));
    let told: Vec<_> = record.renditions.iter().map(|one| (one.key.clone(), one.width, one.bytes)).collect();
    let stored = |spec| world.store.rendition(&job.id, spec).unwrap().len() as u64;
    let expected = [(specs[0], "256.webp"), (specs[1], "512.avif")]
        .map(|(spec, name)| (format!("images/{}-{name}", job.id), spec.side(), stored(spec)));
    assert_eq!(told, expected);
    assert_eq!(world.model.paid("a red fox"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_jobs_are_a_hundred_pictures_and_a_hundred_paid_calls() {
    let world = World::new();
    world.model.take(std::time::Duration::from_secs(5));
    let jobs: Vec<_> = (0..100).map(|n| world.submit(&format!("picture {n}"))).collect();
    let worker = world.start();
    for job in &jobs {
        world.status(job, Status::Succeeded).await;
    }
    world.settled().await;
    assert_eq!((world.model.calls(), world.model.paid_in_all()), (100, 100));
    assert!(world.queue.dead().is_empty());
    worker.stop().await;
}
