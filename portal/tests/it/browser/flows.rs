//! The three pages as people use them, each of them held to what every page must keep.

use fantoccini::Locator;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::key::Key;

use super::{Browser, House};
use crate::support::User;

#[tokio::test(flavor = "multi_thread")]
async fn create_show_and_complete() {
    let Some(browser) = Browser::start().await else { return };
    // Long enough to be seen on its way.
    let house = House::start("1500ms", &[]).await;
    browser.open(&house.url("/")).await;
    browser.find("#email").await;
    browser.check("the sign-in").await;
    house.sign_in_teacher(&browser).await;
    browser.check("an empty gallery").await;

    create(&browser, &house).await;
    let assignment = browser.page.current_url().await.unwrap().to_string();
    browser.until("a picture on its way", "document.querySelector('[data-pending] progress')").await;
    browser.screenshot("progress").await;
    // It appears without a reload, and nothing moves.
    browser.run("window.notReloaded = true;").await;
    browser.until_it_says("2 of 2 pictures are ready.").await;
    browser.until("both pictures", LOADED).await;
    assert_eq!(browser.run("return window.notReloaded;").await, true);
    browser.check("the teacher's assignment").await;
    browser.screenshot("assignment").await;
    browser.click("a[href$='/edit']").await;
    browser.find("textarea[name='prompt']").await;
    browser.check("the form of a picture").await;

    // Another one, with a new seed.
    browser.open(&assignment).await;
    let before = first_source(&browser).await;
    browser.click("form[action$='/again'] button").await;
    browser.until_it_says("2 of 2 pictures are ready.").await;
    browser.until("both pictures", LOADED).await;
    assert_ne!(first_source(&browser).await, before);
    browser.open(&house.url("/classes")).await;
    browser.check("the classes").await;
    house.sign_out(&browser).await;

    complete(&browser, &house).await;
    house.sign_out(&browser).await;
    house.sign_in_teacher(&browser).await;
    browser.open(&assignment).await;
    browser.until_it_says("Clouds, and rain that falls from them.").await;
    browser.check("an assignment with answers").await;
    browser.open(&house.url("/nothing")).await;
    browser.check("a page that is not there").await;
    browser.close().await;
    house.stop().await;
}

const LOADED: &str = "[...document.querySelectorAll('img.picture')].length === 2 && \
                      [...document.querySelectorAll('img.picture')].every((i) => i.complete && i.naturalWidth === 1024)";

async fn first_source(browser: &Browser) -> String {
    browser.find("img.picture").await.attr("src").await.unwrap().unwrap()
}

/// Fills in the form, with what the script suggests for the alternative text.
async fn create(browser: &Browser, house: &House) {
    browser.open(&house.url("/assignments/new")).await;
    browser.check("the form of an assignment").await;
    // What the browser itself would not send.
    browser.run("document.querySelector(\"form[action='/assignments']\").noValidate = true;").await;
    browser.click("form[action='/assignments'] button[type='submit']").await;
    browser.find("a[href='#title']").await;
    browser.check("a form with mistakes").await;
    browser.open(&house.url("/assignments/new")).await;
    browser.fill("#title", "The water cycle").await;
    browser.fill("#question", "Where does the water in the river come from?").await;
    browser.click("input[value='illustration']").await;
    browser.fill("#prompt-0", "a picture of mountains and a river under clouds").await;
    let suggested = browser.find("#alt-0").await.prop("value").await.unwrap().unwrap();
    assert_eq!(suggested, "Mountains and a river under clouds");
    browser.click("#add").await;
    browser.fill("#prompt-1", "rain over a lake").await;
    browser.fill("#alt-1", "Rain falls on a lake").await;
    browser.fill("#prompt-1", "heavy rain over a lake").await;
    let own = browser.find("#alt-1").await.prop("value").await.unwrap().unwrap();
    assert_eq!(own, "Rain falls on a lake", "what a person wrote is left alone");
    browser.click("form[action='/assignments'] button[type='submit']").await;
    browser.find("#summary").await;
}

/// A student, by the keyboard alone.
async fn complete(browser: &Browser, house: &House) {
    house.sign_in_student(browser, "Ada").await;
    browser.until("the picture", "document.querySelector('img.picture')?.complete").await;
    browser.check("the gallery").await;
    browser.scheme("dark").await;
    browser.screenshot("gallery-dark").await;
    browser.scheme("light").await;
    press(browser, Key::Tab).await;
    assert_eq!(browser.run("return document.activeElement.className;").await, "skip");
    tab_to(browser, "document.activeElement.textContent === 'The water cycle'").await;
    press(browser, Key::Enter).await;
    browser.find("#text").await;
    browser.until("the pictures", LOADED).await;
    browser.check("the student's assignment").await;

    tab_to(browser, "document.activeElement.id === 'text'").await;
    browser.find("#text").await.send_keys("Clouds, and rain").await.unwrap();
    browser.until("the autosave", "document.getElementById('saved').textContent.startsWith('Saved at')").await;
    browser.page.refresh().await.unwrap();
    let kept = browser.find("#text").await.prop("value").await.unwrap().unwrap();
    assert_eq!(kept, "Clouds, and rain");
    tab_to(browser, "document.activeElement.id === 'text'").await;
    press(browser, Key::End).await;
    let text = browser.page.find(Locator::Css("#text")).await.unwrap();
    text.send_keys(" that falls from them.").await.unwrap();
    tab_to(browser, "document.activeElement.value === 'submit'").await;
    press(browser, Key::Enter).await;
    browser.until_it_says("Submitted. Thank you!").await;
    browser.check("a submitted answer").await;
}

async fn press(browser: &Browser, key: Key) {
    let key = char::from(key);
    let keys =
        KeyActions::new("keys".to_owned()).then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
    browser.page.perform_actions(keys).await.unwrap();
}

async fn tab_to(browser: &Browser, reached: &str) {
    for _ in 0..40 {
        if browser.run(&format!("return {reached};")).await == true {
            return;
        }
        press(browser, Key::Tab).await;
    }
    panic!("the Tab key does not lead to {reached}");
}

/// The portal that a visitor sees first: `cargo dev up` starts it, with a login made for its folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_stack_has_a_portal_of_its_own() {
    let house = House::start("200ms", &[]).await;
    let (origin, password, code) = house.own_portal();
    let address = origin.strip_prefix("http://").unwrap().parse().unwrap();
    let mut teacher = User::new(address);
    let page = teacher.get("/sign-in").await;
    let page =
        teacher.submit(&page, "/sign-in/teacher", &[("email", "teacher@example.com"), ("password", password)]).await;
    page.says("New assignment");
    let mut student = User::new(address);
    let page = student.get("/sign-in").await;
    student.submit(&page, "/sign-in/student", &[("code", code), ("name", "Ada"), ("pin", "4711")]).await.says("Ada");
    house.stop().await;
}
