//! A refusal, a restart in the middle of a job, an API that hangs: what the person in front of the page sees of it.

use nix::sys::signal::Signal;

use super::{Browser, House};

/// Whoever closes the browser finds the picture when coming back: nothing of its way depends on an open page.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_is_closed_in_the_middle_of_a_job_costs_nothing() {
    let Some(browser) = Browser::start().await else { return };
    let house = House::start("500ms", &[]).await;
    house.sign_in_teacher(&browser).await;
    create(&browser, &house, "A slow one", "a tortoise [[latency:4s]]").await;
    browser.until_it_says("Being drawn").await;
    browser.close().await;

    let Some(browser) = Browser::start().await else { return };
    house.sign_in_teacher(&browser).await;
    browser.open(&house.url("/assignments?q=slow")).await;
    browser.until("the picture", "document.querySelector('img.picture')?.complete").await;
    assert_eq!(browser.shifts().await, [""; 0]);
    assert_eq!(house.paid(Some("a tortoise [[latency:4s]]")).await, 1);
    browser.close().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_restart_and_an_api_that_is_away() {
    let Some(browser) = Browser::start().await else { return };
    let mut house = House::start("500ms", &[]).await;
    house.sign_in_teacher(&browser).await;

    // The model refuses; the text is kept, changed, and tried again.
    create(&browser, &house, "A battle", "a battle [[fault:refuse_prompt]]").await;
    browser.until_it_says("The image model refused this description because of its content policy.").await;
    browser.check("a refusal").await;
    browser.screenshot("refusal").await;
    browser.click("a[href$='/edit']").await;
    let kept = browser.find("textarea[name='prompt']").await.prop("value").await.unwrap().unwrap();
    assert_eq!(kept, "a battle [[fault:refuse_prompt]]");
    browser.fill("textarea[name='prompt']", "a game of chess").await;
    browser.click("button[value='again']").await;
    browser.until_it_says("1 of 1 picture is ready.").await;

    // The portal is killed while the model draws; the page that is open goes on by itself.
    create(&browser, &house, "A slow one", "a tortoise [[latency:4s]]").await;
    browser.until_it_says("Being drawn").await;
    house.kill_portal().await;
    browser.until_it_says("The portal does not answer at the moment.").await;
    house.start_portal().await;
    browser.until_it_says("1 of 1 picture is ready.").await;
    browser.until("the picture", "document.querySelector('img.picture')?.complete").await;
    browser.until("the end of the notice", "document.getElementById('trouble').textContent === ''").await;
    assert_eq!(browser.shifts().await, [""; 0]);

    // The API hangs; what is asked for meanwhile waits, and says so.
    house.signal_api(Signal::SIGSTOP);
    create(&browser, &house, "Later", "a snail").await;
    browser.until_it_says("The picture service cannot be reached at the moment.").await;
    browser.until_it_says("Waiting to be sent").await;
    browser.check("a page in an outage").await;
    browser.screenshot("outage").await;
    house.signal_api(Signal::SIGCONT);
    browser.until_it_says("1 of 1 picture is ready.").await;
    for prompt in ["a snail", "a tortoise [[latency:4s]]"] {
        assert_eq!(house.paid(Some(prompt)).await, 1, "{prompt}: a picture is paid for once");
    }
    browser.close().await;
    house.stop().await;
}

async fn create(browser: &Browser, house: &House, title: &str, prompt: &str) {
    browser.open(&house.url("/assignments/new")).await;
    browser.fill("#title", title).await;
    browser.fill("#question", "What is it?").await;
    browser.fill("#prompt-0", prompt).await;
    browser.click("form[action='/assignments'] button[type='submit']").await;
    browser.find("#summary").await;
}
