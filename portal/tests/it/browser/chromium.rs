//! `Browser`: Debian's Chromium, driven by its chromedriver.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::axe;
use crate::support::{PATIENCE, missing};

const BROWSERS: [&str; 2] = ["chromium", "chromium-browser"];

/// A browser with a profile of its own. Dropped, it ends with all its processes.
pub struct Browser {
    pub page: Client,
    axe: &'static str,
    driver: Child,
    _profile: TempDir,
}

/// One command of the `DevTools` protocol, which chromedriver passes on.
#[derive(Debug)]
struct DevTools {
    method: &'static str,
    params: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base_url: &url::Url, session_id: Option<&str>) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!("session/{}/goog/cdp/execute", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "cmd": self.method, "params": self.params }).to_string()))
    }
}

impl Browser {
    /// Starts one; None, and a loud word, where there is none.
    pub async fn start() -> Option<Self> {
        let Some(browser) = on_path(&BROWSERS) else {
            missing("the portal in a browser", "Install Debian's package chromium");
            return None;
        };
        let Some(driver) = on_path(&["chromedriver"]) else {
            missing("the portal in a browser", "Install Debian's package chromium-driver");
            return None;
        };
        let Some(axe) = axe::source() else {
            missing("the portal's accessibility", "Install Node.js with npm, and let it reach its registry once");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let profile = TempDir::new().unwrap();
        let mut args = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--window-size=1200,900".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        // It refuses to put root into a sandbox.
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            args.push("--no-sandbox".to_owned());
        }
        let options = json!({ "binary": browser, "args": args });
        let capabilities = json!({ "browserName": "chrome", "goog:chromeOptions": options });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let (started, url) = (Instant::now(), format!("http://127.0.0.1:{port}"));
        let page = loop {
            match builder.connect(&url).await {
                Ok(page) => break page,
                Err(error) => assert!(started.elapsed() < PATIENCE, "chromedriver does not start: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Some(Self { page, axe, driver, _profile: profile })
    }

    pub async fn open(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// Returns an element, once it is there.
    pub async fn find(&self, css: &str) -> Element {
        let found = self.page.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("no {css}: {error}"))
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let element = self.find(css).await;
        element.clear().await.unwrap();
        element.send_keys(text).await.unwrap();
    }

    pub async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap();
    }

    pub async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.unwrap()
    }

    /// Runs a script and returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.page.execute(script, vec![]).await.unwrap()
    }

    /// Waits until a script returns true.
    pub async fn until(&self, what: &str, script: &str) {
        let started = Instant::now();
        while self.run(&format!("return Boolean({script});")).await != Value::Bool(true) {
            if started.elapsed() > PATIENCE {
                panic!("waited {PATIENCE:?} for {what}; the page says:\n{}", self.text("body").await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows these words.
    pub async fn until_it_says(&self, words: &str) {
        let quoted = Value::from(words).to_string();
        self.until(words, &format!("document.body.innerText.includes({quoted})")).await;
    }

    async fn dev_tools(&self, method: &'static str, params: Value) {
        self.page.issue_cmd(DevTools { method, params }).await.unwrap();
    }

    /// Has the page be seen as on a system that is set to light or dark.
    pub async fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.dev_tools("Emulation.setEmulatedMedia", json!({ "media": "", "features": features })).await;
    }

    /// Gives the page the width of a small telephone.
    async fn narrow(&self) {
        let metrics = json!({ "width": 320, "height": 640, "deviceScaleFactor": 0, "mobile": false });
        self.dev_tools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Takes that back.
    async fn wide(&self) {
        self.dev_tools("Emulation.clearDeviceMetricsOverride", json!({})).await;
        self.until("the window's own width", "innerWidth > 1000").await;
    }

    /// Holds the page to what every page must keep: nothing that axe-core objects to, in light and in dark, no shift of the
    /// layout since it was loaded, and nothing to scroll sideways at 320 px.
    pub async fn check(&self, page: &str) {
        assert_eq!(self.shifts().await, [""; 0], "the layout of {page} shifted");
        for scheme in ["light", "dark"] {
            self.scheme(scheme).await;
            let problems = self.violations().await;
            assert!(problems.is_empty(), "{page} in {scheme}: {problems:#?}");
        }
        self.scheme("light").await;
        self.narrow().await;
        self.until("320 px", "innerWidth === 320").await;
        let overflow = self.run("return document.documentElement.scrollWidth - innerWidth;").await;
        assert!(overflow.as_i64().unwrap() <= 0, "{page} is {overflow} px too wide at 320 px");
        let problems = self.violations().await;
        assert!(problems.is_empty(), "{page} at 320 px: {problems:#?}");
        self.wide().await;
    }

    /// Returns what has moved by itself since the page was loaded, each time with how far and from where to where.
    pub async fn shifts(&self) -> Vec<String> {
        let script = "const done = arguments[arguments.length - 1];
            const found = [];
            const at = (r) => `${r.x},${r.y} ${r.width}x${r.height}`;
            const source = (s) => `${s.node?.outerHTML?.slice(0, 120)} from ${at(s.previousRect)} to ${at(s.currentRect)}`;
            new PerformanceObserver((list) => {
              for (const e of list.getEntries()) {
                if (!e.hadRecentInput) found.push(`${e.value}: ${e.sources.map(source).join(' | ')}`);
              }
            }).observe({ type: 'layout-shift', buffered: true });
            setTimeout(() => done(found), 100);";
        texts(&self.page.execute_async(script, vec![]).await.unwrap())
    }

    /// Returns what axe-core finds, by its rules for WCAG 2.2 AA and good practice.
    async fn violations(&self) -> Vec<String> {
        self.page.execute(self.axe, vec![]).await.unwrap();
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations.map(
              (v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html + ' ' + n.failureSummary).join(' | ')}`)),
              (error) => done([`axe failed: ${error}`]));";
        texts(&self.page.execute_async(script, vec![]).await.unwrap())
    }

    /// Writes `docs/portal/{name}.png`, if `PORTAL_SCREENSHOTS` asks for it.
    pub async fn screenshot(&self, name: &str) {
        #[expect(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
        let wanted = std::env::var_os("PORTAL_SCREENSHOTS").is_some();
        if wanted {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/portal");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{name}.png")), self.page.screenshot().await.unwrap()).unwrap();
        }
    }

    pub async fn close(self) {
        self.page.clone().close().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = self.driver.id().and_then(|id| i32::try_from(id).ok()) {
            // It has ended already, or it ends now.
            let _ended = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "where programs are is no setting")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}
