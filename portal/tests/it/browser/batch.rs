//! Thirty pictures at once, each with its own progress, and what has not started withdrawn.

use super::{Browser, House};

const PICTURES: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_pictures() {
    let Some(browser) = Browser::start().await else { return };
    // Two at a time: most of them wait long enough to be withdrawn.
    let house = House::start("700ms", &[("WORKER_SLOTS", "2")]).await;
    house.sign_in_teacher(&browser).await;
    browser.open(&house.url("/assignments/new")).await;
    browser.fill("#title", "Thirty animals").await;
    browser.fill("#question", "Which of them lay eggs?").await;
    for n in 0..PICTURES {
        if n > 0 {
            browser.click("#add").await;
        }
        browser.fill(&format!("#prompt-{n}"), &format!("animal {}", n + 1)).await;
    }
    assert_eq!(browser.run("return document.getElementById('add').disabled;").await, true, "thirty is the most");
    browser.click("form[action='/assignments'] button[type='submit']").await;
    browser.find("#summary").await;
    assert_eq!(browser.run("return document.querySelectorAll('[data-picture]').length;").await, PICTURES);

    let done = "Number(document.getElementById('summary').textContent.split(' ')[0])";
    browser.until("some of them", &format!("{done} >= 4 && {done} < 30")).await;
    browser.screenshot("batch").await;
    browser.click("#cancel-all button").await;
    browser.until("the end of all", "!document.querySelector('[data-pending]')").await;
    let counted = browser
        .run(
            "const say = (words) => [...document.querySelectorAll('.note strong')]
               .filter((e) => e.textContent === words).length;
             return [document.querySelectorAll('img.picture').length, say('Cancelled')];",
        )
        .await;
    let (made, canceled) = (counted[0].as_u64().unwrap(), counted[1].as_u64().unwrap());
    assert_eq!(made + canceled, PICTURES as u64, "{}", browser.text("body").await);
    assert!(made >= 4 && canceled >= 1, "{made} made, {canceled} canceled");
    let paid = house.paid(None).await;
    assert!(paid < PICTURES as u64, "what was withdrawn was paid for: {paid}");
    browser.check("an assignment of thirty pictures").await;
    browser.close().await;
    house.stop().await;
}
