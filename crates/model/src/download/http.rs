//! GET with resume. Follows redirects, verifies certificates with the platform's own store (on
//! Linux `SSL_CERT_FILE` is honoured), and gives up only after several attempts without progress.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::DownloadError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that says nothing for this long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts in a row that bring no new byte.
const IDLE_ATTEMPTS_MAX: u32 = 3;
const PAGE_BYTES_MAX: u64 = 4 << 20;

pub(super) struct Http {
    agent: Agent,
}

impl Http {
    pub(super) fn new() -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .build();
        Http {
            agent: config.into(),
        }
    }

    /// A small page of text.
    pub(super) fn text(&self, url: &str) -> Result<String, DownloadError> {
        let mut response = self.agent.get(url).call().map_err(unreachable(url))?;
        expect_status(url, response.status().as_u16(), &[200])?;
        response
            .body_mut()
            .with_config()
            .limit(PAGE_BYTES_MAX)
            .read_to_string()
            .map_err(unreachable(url))
    }

    /// Fills `partial` up to `expected` bytes, from where it ends.
    pub(super) fn resume(
        &self,
        url: &str,
        partial: &Path,
        expected: u64,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        let length = || std::fs::metadata(partial).map_or(0, |found| found.len());
        if length() > expected {
            std::fs::remove_file(partial).map_err(DownloadError::disk(partial))?;
        }
        let mut idle = 0;
        loop {
            let before = length();
            report(before);
            if before == expected {
                return Ok(());
            }
            let result = self.attempt(url, partial, before, expected, report);
            idle = if length() > before { 0 } else { idle + 1 };
            match result {
                Err(error @ (DownloadError::Disk { .. } | DownloadError::TooLong { .. })) => {
                    return Err(error);
                }
                // A client's error does not go away by itself.
                Err(DownloadError::Status { status, url }) if status < 500 => {
                    return Err(DownloadError::Status { status, url });
                }
                Err(error) if idle >= IDLE_ATTEMPTS_MAX => return Err(error),
                Ok(()) if idle >= IDLE_ATTEMPTS_MAX => {
                    return Err(DownloadError::EndedEarly {
                        url: url.to_owned(),
                        got: length(),
                        expected,
                    });
                }
                _ => {}
            }
        }
    }

    /// One request; whatever it brings stays on disk.
    fn attempt(
        &self,
        url: &str,
        partial: &Path,
        start: u64,
        expected: u64,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        let mut request = self.agent.get(url);
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(unreachable(url))?;
        let status = response.status().as_u16();
        expect_status(url, status, &[200, 206])?;
        let continues = response
            .headers()
            .get("content-range")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(&format!("bytes {start}-")));
        // A server that ignores or mistakes the range sends the file from its start.
        let mut done = match status == 206 && continues {
            true => start,
            false if status == 200 => 0,
            false => {
                return Err(DownloadError::Unreachable {
                    url: url.to_owned(),
                    problem: "it sends another range than was asked for".to_owned(),
                });
            }
        };
        let disk = || DownloadError::disk(partial);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(done == 0)
            .append(done > 0)
            .write(true)
            .open(partial)
            .map_err(disk())?;
        let mut body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut buffer = vec![0; 1 << 17];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(DownloadError::Unreachable {
                        url: url.to_owned(),
                        problem: error.to_string(),
                    });
                }
            };
            if done + n as u64 > expected {
                drop(file);
                std::fs::remove_file(partial).map_err(disk())?;
                return Err(DownloadError::TooLong {
                    url: url.to_owned(),
                    expected,
                });
            }
            file.write_all(&buffer[..n]).map_err(disk())?;
            done += n as u64;
            report(done);
        }
    }
}

fn unreachable(url: &str) -> impl FnOnce(ureq::Error) -> DownloadError {
    let url = url.to_owned();
    move |error| DownloadError::Unreachable {
        url,
        problem: error.to_string(),
    }
}

fn expect_status(url: &str, status: u16, wanted: &[u16]) -> Result<(), DownloadError> {
    match wanted.contains(&status) {
        true => Ok(()),
        false => Err(DownloadError::Status {
            url: url.to_owned(),
            status,
        }),
    }
}
