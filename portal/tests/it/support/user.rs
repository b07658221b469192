//! `User`: somebody with a browser that runs no script: follows links and redirects, keeps the cookie, fills in forms.

use std::net::SocketAddr;

use reqwest::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION, SET_COOKIE,
};
use reqwest::{Client, StatusCode};

/// A page as it came.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: StatusCode,
    /// Where it came from, after redirects.
    pub path: String,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    /// Returns the value of the first field of this name.
    pub fn field(&self, name: &str) -> &str {
        let (_, after) = self.text.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| {
            panic!("no field {name} in {}:\n{}", self.path, self.text);
        });
        after.split_once('"').unwrap().0
    }

    /// Returns the ids of the pictures on the page.
    pub fn pictures(&self) -> Vec<&str> {
        self.text.split("data-picture=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect()
    }

    #[track_caller]
    pub fn says(&self, words: &str) {
        assert!(self.text.contains(words), "{} does not say {words:?}:\n{}", self.path, self.text);
    }

    #[track_caller]
    pub fn does_not_say(&self, words: &str) {
        assert!(!self.text.contains(words), "{} says {words:?}:\n{}", self.path, self.text);
    }
}

pub struct User {
    http: Client,
    origin: String,
    pub cookie: Option<String>,
}

impl User {
    pub fn new(address: SocketAddr) -> Self {
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, origin: format!("http://{address}"), cookie: None }
    }

    pub async fn get(&mut self, path: &str) -> Page {
        let request = self.http.get(format!("{}{path}", self.origin));
        self.send(request, path).await
    }

    /// Sends a form with the token that the page has.
    pub async fn submit(&mut self, page: &Page, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = page.field("csrf").to_owned();
        let mut all = vec![("csrf", csrf.as_str())];
        all.extend(fields);
        self.post(path, &all).await
    }

    /// Sends fields as they are.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.http.post(format!("{}{path}", self.origin)).form(fields);
        self.send(request, path).await
    }

    /// Sends fields as a browser does that a page of another site has told to.
    pub async fn post_from(&mut self, site: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.http.post(format!("{}{path}", self.origin)).form(fields);
        self.send(request.header("origin", site).header("sec-fetch-site", "cross-site"), path).await
    }

    /// Sends fields as the script does.
    pub async fn post_as_script(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.http.post(format!("{}{path}", self.origin)).header(ACCEPT, "application/json").form(fields);
        self.send(request, path).await
    }

    async fn send(&mut self, request: reqwest::RequestBuilder, path: &str) -> Page {
        let (mut request, mut path) = (request, path.to_owned());
        loop {
            if let Some(cookie) = &self.cookie {
                request = request.header(COOKIE, cookie);
            }
            let answer = request.send().await.unwrap();
            if let Some(set) = answer.headers().get(SET_COOKIE) {
                let set = set.to_str().unwrap();
                assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
                self.cookie = Some(set.split_once(';').unwrap().0.to_owned());
            }
            if answer.status() == StatusCode::SEE_OTHER {
                answer.headers()[LOCATION].to_str().unwrap().clone_into(&mut path);
                request = self.http.get(format!("{}{path}", self.origin));
                continue;
            }
            let (status, headers) = (answer.status(), answer.headers().clone());
            let page = Page {
                status,
                path,
                headers,
                text: String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned(),
            };
            self.holds(&page);
            return page;
        }
    }

    /// What every answer has to keep.
    fn holds(&self, page: &Page) {
        let policy = page.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' http"));
        assert!(!policy.contains("unsafe") && !policy.contains("data:"), "{policy}");
        let is_page =
            page.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.to_str().unwrap().starts_with("text/html"));
        if is_page {
            assert_eq!(page.headers[CACHE_CONTROL], "no-store");
            for banned in [" style=\"", " onclick=", "<style", "javascript:"] {
                page.does_not_say(banned);
            }
            // The key is the server's.
            page.does_not_say("0123456789abcdef");
        }
    }
}
