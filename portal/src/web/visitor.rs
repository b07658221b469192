//! `Visitor`: who is asking, by the cookie, and from where.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Redirect;

use super::failure::{PageError, page_response};
use super::form::Form;
use super::{Portal, create};
use crate::accounts::{Student, Teacher};
use crate::page::{CSRF, Resume, SignIn, View, sign_in};
use crate::secret;
use crate::sessions::Who;

/// Who is asking.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) who: Option<Who>,
    /// For the limits of the sign-in.
    pub(super) address: IpAddr,
    /// Whether a script asks, which cannot show a page.
    pub(super) wants_json: bool,
    cookie: String,
    /// The browser does not have the cookie yet.
    is_new: bool,
    /// The database could not be asked who this is.
    unknown: bool,
    /// Path and query of the request.
    asked_for: String,
}

impl FromRequestParts<Arc<Portal>> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, portal: &Arc<Portal>) -> Result<Self, Infallible> {
        let sent = cookie(&parts.headers, cookie_name(portal.https));
        let is_new = sent.is_none();
        let cookie = sent.unwrap_or_else(secret::token);
        let mut unknown = false;
        let who = match sent_session(portal, &cookie, is_new).await {
            Ok(who) => who,
            Err(error) => {
                tracing::error!(%error, "a session cannot be looked up");
                unknown = true;
                None
            }
        };
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let asked_for = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self {
            who,
            address: client_address(&parts.headers, peer, portal.trusted_proxies),
            wants_json: accept.starts_with("application/json"),
            cookie,
            is_new,
            unknown,
            asked_for,
        })
    }
}

impl Visitor {
    /// Returns what the pages need to know.
    pub(super) fn view<'a>(&'a self, portal: &Portal) -> View<'a> {
        let trouble = match &self.who {
            Some(Who::Teacher(_)) => portal.desk.trouble_for_teachers(),
            _ => portal.desk.trouble().map(str::to_owned),
        };
        View { who: self.who.as_ref(), csrf: secret::csrf_token(&self.cookie), trouble }
    }

    /// Returns the header that gives the browser the cookie, if it has none: a form needs one.
    pub(super) fn new_cookie(&self, portal: &Portal) -> HeaderMap {
        if self.is_new { set_cookie(portal, &self.cookie, Duration::from_secs(3600)) } else { HeaderMap::new() }
    }

    /// Returns the visitor after the sign-in.
    pub(super) fn entered(&self, who: Who, token: String) -> Self {
        Self { who: Some(who), cookie: token, is_new: false, unknown: false, ..self.clone() }
    }

    /// Returns the token of the session.
    pub(super) fn token(&self) -> &str {
        &self.cookie
    }

    /// Whether a form was made for this visitor.
    pub(super) fn made(&self, form: &Form) -> bool {
        !self.is_new && secret::same(form.raw(CSRF), &secret::csrf_token(&self.cookie))
    }

    /// Returns who reads a page.
    ///
    /// # Errors
    /// The way to the sign-in.
    pub(super) fn reader(&self) -> Result<&Who, PageError> {
        self.refuse_if_unknown()?;
        self.who.as_ref().ok_or_else(|| {
            let next = form_urlencoded::Serializer::new(String::new()).append_pair("next", &self.asked_for).finish();
            PageError::answer(Redirect::to(&format!("/sign-in?{next}")))
        })
    }

    /// Returns the teacher who reads a page.
    ///
    /// # Errors
    /// The way to the sign-in, or 403 for a student.
    pub(super) fn reading_teacher(&self) -> Result<&Teacher, PageError> {
        match self.reader()? {
            Who::Teacher(teacher) => Ok(teacher),
            Who::Student(_) => Err(PageError::NotForStudents),
        }
    }

    /// Returns the teacher who has sent a form.
    ///
    /// # Errors
    /// The sign-in with the form kept, 403 for a student, or the form again if it was made for another session.
    pub(super) async fn teacher(&self, portal: &Portal, form: &Form) -> Result<&Teacher, PageError> {
        match self.sender(portal, form).await? {
            Who::Teacher(teacher) => Ok(teacher),
            Who::Student(_) => Err(PageError::NotForStudents),
        }
    }

    /// Returns the student who has sent a form.
    ///
    /// # Errors
    /// As [`teacher`](Self::teacher), the other way round.
    pub(super) async fn student(&self, portal: &Portal, form: &Form) -> Result<&Student, PageError> {
        match self.sender(portal, form).await? {
            Who::Student(student) => Ok(student),
            Who::Teacher(_) => Err(PageError::NotForTeachers),
        }
    }

    async fn sender(&self, portal: &Portal, form: &Form) -> Result<&Who, PageError> {
        self.refuse_if_unknown()?;
        let path = self.asked_for.clone();
        let resume = Resume { path, body: form.encoded().to_owned() };
        let Some(who) = &self.who else {
            if self.wants_json {
                return Err(PageError::SessionEnded);
            }
            let state = SignIn { resume: Some(resume), ..SignIn::default() };
            let page = sign_in(&self.view(portal), &state);
            let answer = page_response(StatusCode::UNAUTHORIZED, page);
            return Err(PageError::answer((self.new_cookie(portal), answer)));
        };
        if self.made(form) {
            return Ok(who);
        }
        if self.wants_json {
            return Err(PageError::SessionEnded);
        }
        // Made before somebody signed in again, in another tab perhaps: shown again, with a new token, and not obeyed.
        let notice = "You have signed in again since you opened this page. Please look at it and send it once more.";
        match create::resume(portal, self, &resume, notice).await? {
            Some(again) => Err(PageError::answer(again)),
            None => Err(PageError::Stale),
        }
    }

    /// Tells a session that has ended from one that cannot be looked up.
    ///
    /// # Errors
    /// The latter.
    pub(super) fn refuse_if_unknown(&self) -> Result<(), PageError> {
        if self.unknown { Err(PageError::Unavailable) } else { Ok(()) }
    }
}

/// A cookie that was made a moment ago belongs to nobody.
async fn sent_session(portal: &Portal, cookie: &str, is_new: bool) -> Result<Option<Who>, sqlx::Error> {
    if is_new { Ok(None) } else { portal.database.session(cookie).await }
}

/// Returns the header that sets the cookie. `Lax`, so that a link from elsewhere finds one signed in; forms have a token.
pub(super) fn set_cookie(portal: &Portal, token: &str, lasts: Duration) -> HeaderMap {
    let (name, secure) = (cookie_name(portal.https), if portal.https { "; Secure" } else { "" });
    let seconds = lasts.as_secs();
    let text = format!("{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut headers = HeaderMap::new();
    headers.insert(header::SET_COOKIE, HeaderValue::from_str(&text).expect("tokens are base64"));
    headers
}

/// The prefix has the browser refuse the cookie from anything but this very host over https.
fn cookie_name(https: bool) -> &'static str {
    if https { "__Host-portal" } else { "portal" }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let sent = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = sent.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let is_token =
        |text: &&str| text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    pairs.find(|(named, _)| *named == name).map(|(_, value)| value).filter(is_token).map(str::to_owned)
}

/// Each trusted proxy has appended one address, so the client's is the last but the number of proxies before ours.
fn client_address(headers: &HeaderMap, peer: IpAddr, trusted_proxies: u8) -> IpAddr {
    let Some(back) = usize::from(trusted_proxies).checked_sub(1) else { return peer };
    let sent = headers.get_all("x-forwarded-for").into_iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = sent.flat_map(|value| value.split(',')).map(str::trim).collect();
    named.iter().rev().nth(back).and_then(|text| text.parse().ok()).unwrap_or(peer)
}

/// Returns a path of this site: whatever somebody put into the link, nobody is sent elsewhere.
pub(super) fn local_path(next: &str) -> &str {
    let local =
        next.starts_with('/') && !next.starts_with("//") && !next.contains('\\') && !next.contains(char::is_control);
    if local { next } else { "/assignments" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_what_the_trusted_proxies_saw() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6, 192.0.2.1, 10.0.0.2"));
        let peer = IpAddr::from([10, 0, 0, 3]);
        assert_eq!(client_address(&headers, peer, 0), peer);
        assert_eq!(client_address(&headers, peer, 1), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(client_address(&headers, peer, 2), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(client_address(&headers, peer, 8), peer);
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(local_path("/assignments/1?q=a"), "/assignments/1?q=a");
        for bad in ["https://evil.example", "//evil.example", "/\\evil.example", "", "javascript:alert(1)", "/\tx"] {
            assert_eq!(local_path(bad), "/assignments", "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_that_is_no_token_is_none() {
        let token = secret::token();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("a=b; portal={token}")).unwrap());
        assert_eq!(cookie(&headers, "portal"), Some(token));
        assert_eq!(cookie(&headers, "a"), None);
    }
}
