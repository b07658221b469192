//! What the portal survives: an API that is away, lost answers, a restart in the middle of everything.

use crate::support::{Db, Page, ScriptedApi, TestPortal, User, eventually, on_both_databases};

on_both_databases!(
    an_api_that_is_away_costs_time_and_no_text,
    a_pause_is_told_to_teachers_with_its_reason_until_it_ends,
    a_restart_goes_on_where_the_database_says,
    a_lost_answer_is_one_job,
    a_job_that_the_api_cannot_take_holds_up_no_other,
    what_was_never_sent_is_canceled_without_the_api,
);

async fn create(teacher: &mut User, prompts: &[&str]) -> Page {
    let form = teacher.get("/assignments/new").await;
    let class = form.text.split_once("<option value=\"").unwrap().1.split_once('"').unwrap().0;
    let mut fields = vec![("form_key", form.field("form_key")), ("class", class), ("title", "T"), ("question", "Q")];
    for prompt in prompts {
        fields.extend([("prompt", *prompt), ("alt", *prompt)]);
    }
    teacher.submit(&form, "/assignments", &fields).await
}

async fn until_it_says(user: &mut User, path: &str, words: &str) {
    eventually(words, async || user.get(path).await.text.contains(words).then_some(())).await;
}

async fn an_api_that_is_away_costs_time_and_no_text(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    api.set_outage(Some((503, "queue_unavailable")));
    let path = create(&mut teacher, &["a fox", "a hen"]).await.path;
    until_it_says(&mut teacher, &path, "The picture service cannot be reached at the moment.").await;
    let page = teacher.get(&path).await;
    page.says("Waiting to be sent");
    assert_eq!(page.pictures().len(), 2);
    assert!(api.jobs().is_empty());

    // Paused by its operators, or with a wrong key, it says something else.
    api.set_outage(Some((503, "intake_paused")));
    until_it_says(&mut teacher, &path, "the picture service is paused by those who run it").await;
    api.set_outage(Some((401, "unauthenticated")));
    until_it_says(&mut teacher, &path, "does not accept this portal’s key").await;

    api.set_outage(None);
    eventually("the jobs", async || (api.jobs().len() == 2).then_some(())).await;
    api.set("a ", "generating");
    until_it_says(&mut teacher, &path, "Being drawn").await;
    teacher.get(&path).await.does_not_say("cannot be reached");

    // Away in the middle of a job.
    api.set_outage(Some((500, "internal_error")));
    until_it_says(&mut teacher, &path, "cannot be reached at the moment").await;
    teacher.get(&path).await.says("Being drawn");
    api.set("a ", "succeeded");
    api.set_outage(None);
    until_it_says(&mut teacher, &path, "2 of 2 pictures are ready.").await;

    // An API that has forgotten everything is no reason to wait for ever.
    let path = create(&mut teacher, &["a cat"]).await.path;
    eventually("the job", async || (api.jobs().len() == 3).then_some(())).await;
    api.forget();
    until_it_says(&mut teacher, &path, "no longer knows this picture").await;
    portal.stop().await;
}

async fn a_pause_is_told_to_teachers_with_its_reason_until_it_ends(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let (mut teacher, mut student) = (portal.teacher().await, portal.student("Ada").await);
    teacher.get("/classes").await.does_not_say("paused");
    assert_eq!(api.calls("queue"), 0, "nothing waits, so nobody asks");

    // Jobs are taken, and nothing is made of them.
    api.pause(None, Some("The <model> is being changed"));
    let path = create(&mut teacher, &["a fox"]).await.path;
    let told = "Pictures are paused: The &lt;model&gt; is being changed. (Since 6 November, 08:05 UTC.)";
    until_it_says(&mut teacher, &path, told).await;
    teacher.get("/classes").await.says(told);
    let page = teacher.get(&path).await;
    let states = teacher.get(&format!("/pictures?ids={}", page.pictures()[0])).await;
    let states: serde_json::Value = serde_json::from_str(&states.text).unwrap();
    assert!(states["trouble"].as_str().unwrap().contains("The <model> is being changed. (Since"), "{states}");
    student.get(&path).await.does_not_say("is being changed");

    // No jobs are taken: a student is told no more than that.
    api.pause(Some("We move house."), Some("The <model> is being changed"));
    let later = create(&mut teacher, &["a hen"]).await.path;
    until_it_says(&mut teacher, &later, "Pictures are paused: We move house. (Since").await;
    teacher.get(&later).await.says("Waiting to be sent");
    teacher.get("/classes").await.says("We move house.");
    until_it_says(&mut student, &path, "the picture service is paused by those who run it").await;
    student.get(&path).await.does_not_say("We move house.");

    api.pause(None, None);
    eventually("the other job", async || (api.jobs().len() == 2).then_some(())).await;
    eventually("no notice", async || (!teacher.get("/classes").await.text.contains("paused")).then_some(())).await;
    api.set("a ", "succeeded");
    until_it_says(&mut teacher, &later, "1 of 1 picture is ready.").await;
    portal.stop().await;
}

async fn a_restart_goes_on_where_the_database_says(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let made = create(&mut teacher, &["a fox"]).await.path;
    eventually("the job", async || (api.jobs().len() == 1).then_some(())).await;
    api.set("fox", "generating");
    until_it_says(&mut teacher, &made, "Being drawn").await;
    api.set_outage(Some((503, "queue_unavailable")));
    let unsent = create(&mut teacher, &["a hen"]).await.path;
    portal.stop().await;

    // While nobody asks, the picture is made; and nobody has to sign in again.
    api.set_outage(None);
    api.set("fox", "succeeded");
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut back = portal.user();
    back.cookie = teacher.cookie;
    until_it_says(&mut back, &made, "1 of 1 picture is ready.").await;
    eventually("the other job", async || (api.jobs().len() == 2).then_some(())).await;
    api.set("hen", "succeeded");
    until_it_says(&mut back, &unsent, "1 of 1 picture is ready.").await;
    portal.stop().await;
}

async fn a_lost_answer_is_one_job(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    api.swallow(true);
    let path = create(&mut teacher, &["a fox", "a hen"]).await.path;
    eventually("two tries", async || (api.calls("batch") >= 2).then_some(())).await;
    // It may be with the API: to cancel it here alone would leave a job that nobody knows.
    let page = teacher.get(&path).await;
    let cancel = format!("/pictures/{}/cancel", page.pictures()[0]);
    teacher.submit(&page, &cancel, &[]).await.says("Being cancelled");
    api.swallow(false);
    until_it_says(&mut teacher, &path, "Cancelled").await;
    assert_eq!((api.jobs().len(), api.calls("cancel")), (2, 1));
    api.set("hen", "succeeded");
    until_it_says(&mut teacher, &path, "1 of 2 pictures are ready, 1 not made.").await;
    portal.stop().await;
}

async fn a_job_that_the_api_cannot_take_holds_up_no_other(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    api.break_item(Some("hen"));
    let odd = create(&mut teacher, &["a fox", "a hen"]).await.path;
    eventually("the other job", async || (api.jobs().len() == 1).then_some(())).await;
    api.set("fox", "succeeded");
    until_it_says(&mut teacher, &odd, "1 of 2 pictures are ready, 1 on the way.").await;
    let page = teacher.get(&odd).await;
    page.says("Waiting to be sent");
    page.does_not_say("cannot be reached");
    let later = create(&mut teacher, &["a cat", "a dog"]).await.path;
    eventually("the jobs after it", async || (api.jobs().len() == 3).then_some(())).await;
    api.set("a ", "succeeded");
    until_it_says(&mut teacher, &later, "2 of 2 pictures are ready.").await;
    portal.stop().await;
}

async fn what_was_never_sent_is_canceled_without_the_api(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    api.set_outage(Some((503, "queue_unavailable")));
    let first = create(&mut teacher, &["a fox"]).await.path;
    until_it_says(&mut teacher, &first, "cannot be reached").await;
    // The courier pauses, so nothing of this one has left the house.
    let page = create(&mut teacher, &["a hen"]).await;
    let cancel = format!("/pictures/{}/cancel", page.pictures()[0]);
    let page = teacher.submit(&page, &cancel, &[]).await;
    let never_sent = page.text.contains("<strong>Cancelled</strong>");
    api.set_outage(None);
    until_it_says(&mut teacher, &page.path, "Cancelled").await;
    eventually("the other job", async || api.jobs().iter().any(|(prompt, _)| prompt == "a fox").then_some(())).await;
    assert!(!never_sent || api.jobs().iter().all(|(prompt, _)| prompt != "a hen"), "a canceled picture was asked for");
    portal.stop().await;
}
