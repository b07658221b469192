//! Who may do what: sign-in, sessions, tokens of forms, other people's things.

use reqwest::StatusCode;

use crate::support::{CODE, Db, EMAIL, PASSWORD, ScriptedApi, TestPortal, on_both_databases};

on_both_databases!(
    an_expired_session_keeps_what_was_written,
    a_form_without_the_visitors_token_does_nothing,
    a_form_of_another_site_signs_nobody_out,
    a_new_password_ends_the_sessions_of_before_and_keeps_the_name,
    a_class_code_written_in_another_way_is_the_same_account,
    classes_are_closed_to_others,
    a_student_comes_back_with_the_pin_alone,
);

async fn an_expired_session_keeps_what_was_written(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let form = teacher.get("/assignments/new").await;
    teacher.submit(&form, "/sign-out", &[]).await;
    let written = [("title", "A & B"), ("question", "Why\nnot?"), ("prompt", "a fox"), ("alt", "A fox")];

    // The session is gone: sign in, and there it is again, not yet sent.
    teacher.cookie = Some(format!("portal={}", "x".repeat(43)));
    let page = teacher.submit(&form, "/assignments", &written).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    page.says("what you wrote is kept");
    let resume = (page.field("resume_path").to_owned(), unescaped(page.field("resume_body")));
    let fields = [
        ("email", EMAIL),
        ("password", PASSWORD),
        ("resume_path", resume.0.as_str()),
        ("resume_body", resume.1.as_str()),
    ];
    let page = teacher.submit(&page, "/sign-in/teacher", &fields).await;
    page.says("You are signed in again.");
    page.says("value=\"A &amp; B\"");
    page.says("Why\nnot?</textarea>");
    page.says(">a fox</textarea>");
    assert!(api.jobs().is_empty(), "nothing was done without another click");

    // Signed in again in another tab: the same, without a detour.
    let stale = teacher.submit(&form, "/assignments", &written).await;
    stale.says("You have signed in again since you opened this page.");
    stale.says(">a fox</textarea>");
    let mut all = vec![("csrf", stale.field("csrf")), ("form_key", stale.field("form_key"))];
    let class = stale.text.split_once("<option value=\"").unwrap().1.split_once('"').unwrap().0;
    all.push(("class", class));
    all.extend(written);
    let page = teacher.post("/assignments", &all).await;
    page.says("A &amp; B");
    let assignment = page.path;

    // The same for an answer, and the script is told.
    let mut student = portal.student("Ada").await;
    let page = student.get(&assignment).await;
    student.cookie = Some(format!("portal={}", "y".repeat(43)));
    let path = format!("{assignment}/answer");
    let answer = [("text", "My long answer"), ("action", "submit")];
    let told = student.post_as_script(&path, &[("csrf", page.field("csrf")), answer[0], answer[1]]).await;
    assert_eq!(told.status, StatusCode::UNAUTHORIZED);
    let page = student.submit(&page, &path, &answer).await;
    let resume = (page.field("resume_path").to_owned(), unescaped(page.field("resume_body")));
    let fields = [
        ("code", CODE),
        ("name", "Ada"),
        ("pin", "4711"),
        ("resume_path", resume.0.as_str()),
        ("resume_body", resume.1.as_str()),
    ];
    let page = student.submit(&page, "/sign-in/student", &fields).await;
    page.says(">My long answer</textarea>");
    page.does_not_say("You have submitted");
    portal.stop().await;
}

fn unescaped(text: &str) -> String {
    text.replace("&amp;", "&").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">")
}

async fn a_form_without_the_visitors_token_does_nothing(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let mut other = portal.user();
    let foreign = other.get("/sign-in").await.field("csrf").to_owned();
    for token in ["", "x", foreign.as_str()] {
        let page = teacher.post("/classes", &[("csrf", token), ("name", "Stolen")]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        let page = teacher.post("/sign-out", &[("csrf", token)]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
    }
    teacher.get("/classes").await.does_not_say("Stolen");
    // Neither does a sign-in: somebody else's account is not put under one's hands.
    let mut user = portal.user();
    user.get("/sign-in").await;
    let page = user.post("/sign-in/teacher", &[("csrf", &foreign), ("email", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    portal.stop().await;
}

async fn classes_are_closed_to_others(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let database = portal::database::Database::open(db.url()).await.unwrap();
    let other = "other@example.com";
    portal::app::put_teacher(&database, other, Some("Other"), PASSWORD.to_owned(), "ZZZZ-9999").await.unwrap();
    let mut teacher = portal.teacher().await;
    let form = teacher.get("/assignments/new").await;
    let class = form.text.split_once("<option value=\"").unwrap().1.split_once('"').unwrap().0;
    let fields = [("class", class), ("title", "Secret"), ("question", "Q"), ("prompt", "a fox"), ("alt", "A fox")];
    let page = teacher.submit(&form, "/assignments", &fields).await;
    let (assignment, picture) = (page.path.clone(), page.pictures()[0].to_owned());
    let ada = portal.student("Ada").await;
    drop(ada);
    let classes = teacher.get("/classes").await;
    let ada = classes.text.split_once("/students/").unwrap().1.split_once('/').unwrap().0;

    let mut stranger = portal.user();
    let sign_in = stranger.get("/sign-in").await;
    let form = stranger.submit(&sign_in, "/sign-in/teacher", &[("email", other), ("password", PASSWORD)]).await;
    assert_eq!(stranger.get(&assignment).await.status, StatusCode::NOT_FOUND);
    stranger.get("/assignments?q=secret").await.does_not_say("Secret");
    for path in [
        format!("/pictures/{picture}/again"),
        format!("/pictures/{picture}/cancel"),
        format!("{assignment}/cancel"),
        format!("/students/{ada}/pin"),
    ] {
        assert_eq!(stranger.submit(&form, &path, &[]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let states = stranger.get(&format!("/pictures?ids={picture}")).await;
    states.says("\"pictures\":[]");
    let mut student = portal.user();
    let page = student.get("/sign-in").await;
    student.submit(&page, "/sign-in/student", &[("code", "zzzz9999"), ("name", "Eve"), ("pin", "1234")]).await;
    assert_eq!(student.get(&assignment).await.status, StatusCode::NOT_FOUND);
    assert_eq!(student.get("/assignments/new").await.status, StatusCode::FORBIDDEN);
    assert_eq!(student.get("/classes").await.status, StatusCode::FORBIDDEN);

    // Who is not signed in is sent to the sign-in, and back.
    let mut nobody = portal.user();
    let page = nobody.get(&assignment).await;
    assert!(page.path.starts_with("/sign-in?next=%2Fassignments%2F"), "{}", page.path);
    assert_eq!(nobody.get(&format!("/pictures?ids={picture}")).await.status, StatusCode::UNAUTHORIZED);
    portal.stop().await;
}

async fn a_student_comes_back_with_the_pin_alone(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    portal.student("Ada").await;
    portal.student(" ADA ").await;
    let mut impostor = portal.user();
    let page = impostor.get("/sign-in").await;
    let wrong = [("code", CODE), ("name", "Ada"), ("pin", "0000")];
    impostor.submit(&page, "/sign-in/student", &wrong).await.says("with another PIN");
    let page = impostor.get("/sign-in").await;
    let unknown = [("code", "NONE-0000"), ("name", "Ada"), ("pin", "0000")];
    impostor.submit(&page, "/sign-in/student", &unknown).await.says("No class has this code");

    let mut teacher = portal.teacher().await;
    let classes = teacher.get("/classes").await;
    classes.says("ABCD-2345");
    let ada = classes.text.split_once("/students/").unwrap().1.split_once('/').unwrap().0;
    teacher.submit(&classes, &format!("/students/{ada}/pin"), &[]).await.says("chooses a new PIN");
    let page = impostor.get("/sign-in").await;
    impostor.submit(&page, "/sign-in/student", &wrong).await.says("no assignments");
    portal.stop().await;
}

#[tokio::test]
async fn tries_to_sign_in_are_counted() {
    let api = ScriptedApi::start().await;
    let db = Db::sqlite();
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut user = portal.user();
    let page = user.get("/sign-in").await;
    for _ in 0..5 {
        let page = user.submit(&page, "/sign-in/teacher", &[("email", EMAIL), ("password", "wrong")]).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        page.says("Address or password is wrong.");
        page.does_not_say("value=\"wrong\"");
    }
    // The right one comes too late as well: otherwise the answer would tell it.
    let page = user.submit(&page, "/sign-in/teacher", &[("email", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.headers.contains_key("retry-after"));
    page.says("Too many tries.");
    portal.student("Ada").await;
    portal.stop().await;
}

#[tokio::test]
async fn over_https_the_cookie_is_for_https_alone() {
    let api = ScriptedApi::start().await;
    let db = Db::sqlite();
    let portal = TestPortal::with(&db, &api.url(), &["--public-url=https://portal.example.com"]).await;
    let mut user = portal.user();
    let page = user.get("/sign-in").await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(
        cookie.starts_with("__Host-portal=") && cookie.contains("; Secure") && cookie.contains("Path=/"),
        "{cookie}"
    );
    assert_eq!(page.headers["strict-transport-security"], "max-age=63072000");
    portal.stop().await;
}

#[tokio::test]
async fn the_database_holds_no_token_and_no_password() {
    let api = ScriptedApi::start().await;
    let db = Db::sqlite();
    let portal = TestPortal::start(&db, &api.url()).await;
    let teacher = portal.teacher().await;
    portal.stop().await;
    let bytes = std::fs::read(db.url().strip_prefix("sqlite://").unwrap()).unwrap();
    let token = teacher.cookie.unwrap();
    let token = token.split_once('=').unwrap().1;
    for secret in [token, PASSWORD] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn files_of_the_pages_are_kept_for_ever_and_unknown_ones_are_not_there() {
    let api = ScriptedApi::start().await;
    let db = Db::sqlite();
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut user = portal.user();
    let page = user.get("/sign-in").await;
    for attribute in ["href=\"/static/", "src=\"/static/"] {
        let name = page.text.split_once(attribute).unwrap().1.split_once('"').unwrap().0;
        let file = user.get(&format!("/static/{name}")).await;
        assert_eq!(file.headers["cache-control"], "public, max-age=31536000, immutable");
    }
    let png = user.get("/placeholders/pBgOJwh3iIh_iIeGeDeIl3d4ZwgXh3AD.png").await;
    assert_eq!(png.headers["content-type"], "image/png");
    assert_eq!(user.get("/live").await.text, "live");
    assert_eq!(user.get("/ready").await.text, "ready");
    assert_eq!(user.get("/nothing").await.status, StatusCode::NOT_FOUND);
    portal.stop().await;
}

async fn a_form_of_another_site_signs_nobody_out(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut teacher = portal.teacher().await;
    let cookie = teacher.cookie.take();
    // The browser withholds the cookie.
    let answer = teacher.post_from("https://evil.example", "/assignments", &[("title", "planted")]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(teacher.cookie, None, "no cookie is given that would take the place of the session's");
    answer.does_not_say("planted");
    teacher.cookie = cookie;
    teacher.get("/assignments").await.says("New assignment");
    portal.stop().await;
}

async fn a_new_password_ends_the_sessions_of_before_and_keeps_the_name(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let database = portal::database::Database::open(db.url()).await.unwrap();
    let put = async |name| {
        portal::app::put_teacher(&database, "bea@school.example", name, PASSWORD.to_owned(), "BEAS-4711")
            .await
            .unwrap();
    };
    put(Some("Bea Berg")).await;
    let sign_in = async |user: &mut crate::support::User| {
        let page = user.get("/sign-in").await;
        let fields = [("email", "Bea@School.example"), ("password", PASSWORD)];
        user.submit(&page, "/sign-in/teacher", &fields).await
    };
    let mut bea = portal.user();
    sign_in(&mut bea).await.says("Bea Berg");
    put(None).await;
    bea.get("/assignments").await.does_not_say("Bea Berg");
    sign_in(&mut bea).await.says("Bea Berg");
    database.close().await;
    portal.stop().await;
}

async fn a_class_code_written_in_another_way_is_the_same_account(db: Db) {
    let api = ScriptedApi::start().await;
    let portal = TestPortal::start(&db, &api.url()).await;
    let mut user = portal.user();
    // As many accounts would be let through: an address has sixty tries a minute.
    let mut refused = false;
    for n in 0..40 {
        let page = user.get("/sign-in").await;
        let (code, name) = (format!("{CODE}{}", ".".repeat(n)), format!("{}Ada", " ".repeat(n)));
        let fields = [("code", code.as_str()), ("name", &name), ("pin", if n == 0 { "4711" } else { "0000" })];
        let page = user.submit(&page, "/sign-in/student", &fields).await;
        refused = page.status == StatusCode::TOO_MANY_REQUESTS;
        if refused {
            break;
        }
    }
    assert!(refused, "forty tries in forty ways of writing were all let through");
    portal.stop().await;
}
