//! The three pages: create, show, complete.

use reqwest::StatusCode;

use crate::support::{Db, Page, ScriptedApi, TestPortal, User, eventually, on_both_databases};

on_both_databases!(
    an_assignment_goes_from_the_form_to_the_picture,
    a_refused_description_says_why_and_is_kept,
    thirty_pictures_are_one_batch_and_what_has_not_started_can_be_canceled,
    a_job_that_failed_or_came_too_late_says_so_and_is_made_again_on_request,
    an_answer_is_saved_and_submitted_once_and_the_teacher_reads_it,
    the_gallery_is_searched_and_paged,
    a_form_sent_twice_is_one_assignment_and_one_job,
    a_form_changed_after_back_is_another_assignment,
    what_is_written_while_a_picture_is_being_made_is_kept,
    what_has_to_be_mended_is_named_and_nothing_is_lost,
);

/// Fills in the form of an assignment with these pictures.
async fn create(teacher: &mut User, title: &str, prompts: &[&str]) -> Page {
    let form = teacher.get("/assignments/new").await;
    let page = teacher.submit(&form, "/assignments", &fields(&form, title, prompts)).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(page.path.starts_with("/assignments/"), "{}", page.path);
    page
}

fn fields<'a>(form: &'a Page, title: &'a str, prompts: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![("form_key", form.field("form_key")), ("class", class(form)), ("title", title)];
    fields.extend([("question", "What do you see?"), ("style", "as-described")]);
    for prompt in prompts {
        fields.extend([("prompt", *prompt), ("alt", *prompt)]);
    }
    fields
}

fn class(form: &Page) -> &str {
    form.text.split_once("<option value=\"").unwrap().1.split_once('"').unwrap().0
}

/// Looks at a page until it says something.
async fn until_it_says(user: &mut User, path: &str, words: &str) -> Page {
    eventually(words, async || {
        let page = user.get(path).await;
        page.text.contains(words).then_some(page)
    })
    .await
}

async fn an_assignment_goes_from_the_form_to_the_picture(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let page = create(&mut teacher, "The <fox>", &["a red fox in the snow"]).await;
    page.says("The &lt;fox&gt;");

    for (status, words) in [("queued", "In the queue"), ("generating", "Being drawn"), ("processing", "Being finished")]
    {
        eventually("the job", async || (api.jobs().len() == 1).then_some(())).await;
        api.set("fox", status);
        until_it_says(&mut teacher, &page.path, words).await.says("0 of 1 picture is ready, 1 on the way.");
    }
    // A student sees that something is on its way.
    let mut student = portal.student("Ada").await;
    student.get(&page.path).await.says("Being finished");

    api.set("fox", "succeeded");
    let done = until_it_says(&mut teacher, &page.path, "1 of 1 picture is ready.").await;
    let first = api.jobs()[0].1;
    assert_eq!(api.alt_texts(), [Some("a red fox in the snow".to_owned())]);
    done.says(&format!("src=\"http://127.0.0.1:8081/images/{first}.webp\""));
    done.says("width=\"1024\" height=\"1024\" loading=\"lazy\"");
    done.says("alt=\"a red fox in the snow\"");
    done.says("src=\"/placeholders/pBgOJwh3iIh_");

    // The script's own door says the same.
    let states = teacher.get(&format!("/pictures?ids={}", done.pictures()[0])).await;
    let states: serde_json::Value = serde_json::from_str(&states.text).unwrap();
    assert_eq!(states["ask_after_ms"], serde_json::Value::Null);
    assert!(states["pictures"][0]["figure"].as_str().unwrap().contains(".webp"));

    // Another one: a new seed, and the picture before it stays until then.
    let id = done.pictures()[0];
    let page = teacher.submit(&done, &format!("/pictures/{id}/again"), &[("form_key", done.field("form_key"))]).await;
    page.says(&format!("/images/{first}.webp"));
    eventually("the second job", async || (api.jobs().len() == 2).then_some(())).await;
    let second = api.jobs().into_iter().find(|(_, seed)| *seed != first).unwrap();
    assert_eq!(second.0, "a red fox in the snow");
    api.set("fox", "succeeded");
    until_it_says(&mut teacher, &page.path, &format!("/images/{}.webp", second.1)).await;
    portal.stop().await;
}

async fn a_refused_description_says_why_and_is_kept(db: Db) {
    let api = ScriptedApi::start().await;
    api.refuse("unspeakable");
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let page = create(&mut teacher, "Battle", &["a battle", "an unspeakable thing"]).await;
    eventually("the job", async || (api.jobs().len() == 1).then_some(())).await;
    api.set("battle", "blocked");
    // One by the model, later; one by the API, at once. The other pictures of the batch are not affected.
    let page = until_it_says(&mut teacher, &page.path, "because of its content policy").await;
    page.says("The picture service did not take this request: prompt is not as it should be.");
    page.says("2 not made");

    let id = page.pictures()[0].to_owned();
    let edit = teacher.get(&format!("/pictures/{id}/edit")).await;
    edit.says("content policy");
    edit.says(">a battle</textarea>");
    let fields = [
        ("form_key", edit.field("form_key")),
        ("prompt", "two armies at chess"),
        ("alt", "A chess board"),
        ("style", "pencil"),
        ("action", "again"),
    ];
    let page = teacher.submit(&edit, &format!("/pictures/{id}"), &fields).await;
    eventually("the new job", async || api.jobs().iter().any(|(prompt, _)| prompt.contains("chess")).then_some(()))
        .await;
    assert!(api.jobs().iter().any(|(prompt, _)| prompt.starts_with("two armies at chess\n\nStyle: a detailed pencil")));
    api.set("chess", "succeeded");
    until_it_says(&mut teacher, &page.path, "alt=\"A chess board\"").await;

    // The alternative text alone costs no picture.
    let edit = teacher.get(&format!("/pictures/{id}/edit")).await;
    let fields = [("prompt", "changed"), ("alt", "A board with 32 pieces"), ("style", "pencil"), ("action", "alt")];
    let page = teacher.submit(&edit, &format!("/pictures/{id}"), &fields).await;
    page.says("alt=\"A board with 32 pieces\"");
    assert_eq!(
        teacher.get("/assignments?q=battle+32+pieces").await.pictures().len(),
        1,
        "it is found by what it says now"
    );
    assert_eq!(api.jobs().len(), 2);
    portal.stop().await;
}

async fn thirty_pictures_are_one_batch_and_what_has_not_started_can_be_canceled(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let prompts: Vec<String> = (1..=30).map(|n| format!("animal {n:02}")).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let page = create(&mut teacher, "Thirty animals", &prompts).await;
    assert_eq!(page.pictures().len(), 30);
    until_it_says(&mut teacher, &page.path, "0 of 30 pictures are ready, 30 on the way.").await;
    eventually("the jobs", async || (api.jobs().len() == 30).then_some(())).await;
    assert_eq!((api.calls("batch"), api.calls("submit")), (1, 0));
    assert!(api.alt_texts().iter().flatten().filter(|text| text.starts_with("animal ")).count() == 30);

    // Each goes its own way.
    api.set("animal 0", "succeeded");
    api.set("animal 1", "generating");
    until_it_says(&mut teacher, &page.path, "9 of 30 pictures are ready, 21 on the way.").await;
    // All ten: what the portal does not know to have begun it would withdraw.
    let page = eventually("ten begun", async || {
        let page = teacher.get(&page.path).await;
        (page.text.matches("<p>Being drawn</p>").count() == 10).then_some(page)
    })
    .await;

    let page = teacher.submit(&page, &format!("{}/cancel", page.path), &[]).await;
    let page = until_it_says(&mut teacher, page.path.trim_end_matches("/cancel"), "Cancelled").await;
    let path = page.path.clone();
    let page = until_it_says(&mut teacher, &path, "9 of 30 pictures are ready, 10 on the way, 11 not made.").await;
    assert_eq!(api.calls("cancel"), 11, "what a worker has begun with is not withdrawn");
    assert_eq!(page.text.matches("<strong>Cancelled</strong>").count(), 11);
    portal.stop().await;
}

async fn a_job_that_failed_or_came_too_late_says_so_and_is_made_again_on_request(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let page = create(&mut teacher, "Farm", &["a fox", "a hen"]).await;
    eventually("the jobs", async || (api.jobs().len() == 2).then_some(())).await;
    api.set("fox", "failed");
    api.set("hen", "expired");
    let page = until_it_says(&mut teacher, &page.path, "0 of 2 pictures are ready, 2 not made.").await;
    page.says("Making the image failed several times.");
    page.says("Not made in time");
    // A student is told that there is none, and what it would show.
    let mut student = portal.student("Ada").await;
    let seen = student.get(&page.path).await;
    seen.says("There is no picture yet.");
    seen.does_not_say("failed");

    let before: Vec<u64> = api.jobs().iter().map(|(_, seed)| *seed).collect();
    let again = format!("/pictures/{}/again", page.pictures()[0]);
    let page = teacher.submit(&page, &again, &[("form_key", page.field("form_key"))]).await;
    eventually("another job", async || (api.jobs().len() == 3).then_some(())).await;
    assert!(api.jobs().iter().any(|(prompt, seed)| prompt == "a fox" && !before.contains(seed)), "another seed");
    api.set("fox", "succeeded");
    until_it_says(&mut teacher, &page.path, "1 of 2 pictures are ready, 1 not made.").await;
    portal.stop().await;
}

async fn an_answer_is_saved_and_submitted_once_and_the_teacher_reads_it(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let assignment = create(&mut teacher, "Fox", &["a fox"]).await.path;
    let mut student = portal.student("Ada").await;
    let page = student.get(&assignment).await;
    page.says("What do you see?");
    let path = format!("{assignment}/answer");

    let saved =
        student.post_as_script(&path, &[("csrf", page.field("csrf")), ("text", "A fo"), ("action", "save")]).await;
    assert_eq!(saved.status, StatusCode::OK);
    student.get(&assignment).await.says(">A fo</textarea>");
    let page = student.submit(&page, &path, &[("text", "A fox,\r\nred"), ("action", "save")]).await;
    page.says("Saved.");
    teacher.get(&assignment).await.says("1 begun and not submitted.");

    let empty = student.submit(&page, &path, &[("text", "  "), ("action", "submit")]).await;
    empty.says("Write your answer before you submit it.");
    student.submit(&page, &path, &[("text", "A red fox"), ("action", "submit")]).await.says("Submitted. Thank you!");
    let again = student.submit(&page, &path, &[("text", "A hen"), ("action", "submit")]).await;
    again.says("that one counts");
    again.says("A red fox");
    let fields = [("csrf", page.field("csrf")), ("text", "A hen"), ("action", "save")];
    assert_eq!(student.post_as_script(&path, &fields).await.status, StatusCode::CONFLICT);

    let page = teacher.get(&assignment).await;
    page.says("<h3>Ada</h3>");
    page.says("A red fox");
    page.does_not_say("A hen");
    // The answer of one is not that of another.
    let mut other = portal.student("Ben").await;
    other.get(&assignment).await.does_not_say("A red fox");
    portal.stop().await;
}

async fn the_gallery_is_searched_and_paged(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    for n in 1..=14 {
        create(&mut teacher, &format!("Lesson {n:02}"), &["a hill"]).await;
    }
    create(&mut teacher, "Über 50 % ÉTÉ", &["summer_house"]).await;
    let mut student = portal.student("Ada").await;
    let first = student.get("/assignments").await;
    assert_eq!(first.pictures().len(), 12);
    first.says("Page 1 of 2");
    first.says("ÉTÉ");
    let second = student.get("/assignments?q=&page=2").await;
    assert_eq!(second.pictures().len(), 3);
    second.says("Lesson 01");
    student.get("/assignments?page=900").await.says("no assignments");

    for (search, found) in [
        ("lesson 07", 1),
        ("LESSON", 12),
        ("%C3%A9t%C3%A9", 1),
        ("50+%25", 1),
        ("5%25%25", 0),
        ("summer_house", 1),
        ("summerxhouse", 0),
        ("%5C", 0),
        ("hill+lesson+14", 1),
        ("%27+OR+1%3D1", 0),
    ] {
        let page = student.get(&format!("/assignments?q={search}")).await;
        assert_eq!(page.pictures().len(), found, "{search}");
    }
    portal.stop().await;
}

async fn a_form_sent_twice_is_one_assignment_and_one_job(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let form = teacher.get("/assignments/new").await;
    let fields = fields(&form, "Once", &["a fox"]);
    let mut other = portal.user();
    other.cookie.clone_from(&teacher.cookie);
    let (one, two) =
        tokio::join!(teacher.submit(&form, "/assignments", &fields), other.submit(&form, "/assignments", &fields));
    assert_eq!(one.path, two.path);
    assert_eq!(teacher.get("/assignments").await.pictures().len(), 1);
    eventually("the job", async || (api.jobs().len() == 1).then_some(())).await;
    api.set("fox", "succeeded");
    let page = until_it_says(&mut teacher, &one.path, "1 of 1").await;

    let again = format!("/pictures/{}/again", page.pictures()[0]);
    let key = [("form_key", page.field("form_key"))];
    teacher.submit(&page, &again, &key).await;
    teacher.submit(&page, &again, &key).await;
    eventually("the second job", async || (api.jobs().len() == 2).then_some(())).await;
    api.set("fox", "succeeded");
    until_it_says(&mut teacher, &one.path, "1 of 1").await;
    // From the history of the browser, when everything is done.
    teacher.submit(&page, &again, &key).await.says("1 of 1 picture is ready.");
    assert_eq!(api.jobs().len(), 2);
    portal.stop().await;
}

async fn a_form_changed_after_back_is_another_assignment(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let form = teacher.get("/assignments/new").await;
    let first = teacher.submit(&form, "/assignments", &fields(&form, "Monday", &["a fox"])).await;
    let second = teacher.submit(&form, "/assignments", &fields(&form, "Tuesday", &["a fox"])).await;
    second.says("Tuesday");
    assert_ne!(first.path, second.path);
    eventually("two jobs", async || (api.jobs().len() == 2).then_some(())).await;
    portal.stop().await;
}

async fn what_is_written_while_a_picture_is_being_made_is_kept(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let page = create(&mut teacher, "Fox", &["a fox"]).await;
    let path = format!("/pictures/{}", page.pictures()[0]);
    let edit = teacher.get(&format!("{path}/edit")).await;
    let fields = [
        ("form_key", edit.field("form_key")),
        ("prompt", "a hen"),
        ("alt", "A hen"),
        ("style", "pencil"),
        ("action", "again"),
    ];
    let refused = teacher.submit(&edit, &path, &fields).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    refused.says("still being made");
    refused.says(">a hen</textarea>");
    eventually("the job", async || (api.jobs().len() == 1).then_some(())).await;
    api.set("fox", "succeeded");
    until_it_says(&mut teacher, &page.path, "1 of 1").await;
    // The same form, now that there is a picture.
    teacher.submit(&edit, &path, &fields).await;
    eventually("the second job", async || api.jobs().iter().any(|(prompt, _)| prompt.contains("hen")).then_some(()))
        .await;
    portal.stop().await;
}

async fn what_has_to_be_mended_is_named_and_nothing_is_lost(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let form = teacher.get("/assignments/new").await;
    let class = class(&form).to_owned();
    let fields = [
        ("class", class.as_str()),
        ("title", ""),
        ("question", "Why?"),
        ("prompt", "a picture of a fox"),
        ("alt", ""),
        ("style", "watercolour"),
    ];
    let page = teacher.submit(&form, "/assignments", &fields).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("<a href=\"#title\">Give the assignment a title.</a>");
    page.says("value=\"A fox\"");
    page.says(">a picture of a fox</textarea>");
    page.says(">Why?</textarea>");
    page.says("value=\"watercolour\" checked");

    // Without a script, the button brings the form with another row.
    let page = teacher.submit(&form, "/assignments/new", &fields).await;
    page.says("Picture 2");
    page.says(">a picture of a fox</textarea>");
    // A class of somebody else's is none.
    let mut foreign = fields.to_vec();
    foreign[0].1 = "another";
    foreign[1].1 = "Title";
    foreign[4].1 = "A fox";
    let page = teacher.submit(&form, "/assignments", &foreign).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(api.jobs().is_empty());
    portal.stop().await;
}
