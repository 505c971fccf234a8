//! Lock files name no host but the public index, so that they work behind any mirror, and hold no package that
//! needs a C toolchain's TLS.

use super::{Violation, violation};
use crate::tree::File;

/// The one source that cargo writes for its default registry, mirrored or not.
const CARGO_SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
const BANNED: [&str; 5] = [
    "openssl",
    "openssl-sys",
    "native-tls",
    "aws-lc-rs",
    "aws-lc-sys",
];

pub(super) fn check(files: &[File]) -> Vec<Violation> {
    files.iter().flat_map(check_one).collect()
}

fn check_one(file: &File) -> Vec<Violation> {
    let name = file.path.rsplit('/').next().unwrap_or("");
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        match name {
            "Cargo.lock" => {
                if line.starts_with("source = ") && line != CARGO_SOURCE {
                    found.push(violation(
                        file,
                        index + 1,
                        "a source other than the default registry",
                    ));
                }
                let package = line
                    .strip_prefix("name = \"")
                    .and_then(|rest| rest.strip_suffix('"'));
                if let Some(package) = package.filter(|package| BANNED.contains(package)) {
                    let says = format!("`{package}` is banned; TLS is rustls with ring");
                    found.push(violation(file, index + 1, says));
                }
            }
            "package-lock.json" | "yarn.lock" | "pnpm-lock.yaml" => {
                let resolved = line.contains("\"resolved\":") || line.starts_with("resolved ");
                if (resolved || line.contains("tarball:")) && line.contains("://") {
                    let says =
                        "a download address; set `omit-lockfile-registry-resolved=true` in .npmrc";
                    found.push(violation(file, index + 1, says));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check as rule;
    use crate::tidy::testing::check;

    #[test]
    fn download_addresses_are_caught() {
        let address =
            "{\n\"resolved\": \"https://mirror.example/a.tgz\",\n\"integrity\": \"sha512-x\"}";
        check(rule, "contracts/package-lock.json", address, &[2]);
        check(
            rule,
            "Cargo.lock",
            "source = \"registry+https://mirror.example/index\"",
            &[1],
        );
        check(
            rule,
            "Cargo.lock",
            "source = \"git+https://example.com/x?rev=1#1\"",
            &[1],
        );
    }

    #[test]
    fn banned_packages_are_caught() {
        check(
            rule,
            "Cargo.lock",
            "[[package]]\nname = \"openssl-sys\"",
            &[2],
        );
    }

    #[test]
    fn plain_locks_pass() {
        let lock =
            "name = \"rustls\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"";
        check(rule, "Cargo.lock", lock, &[]);
        let lock = "{\n\"funding\": \"https://example.com\",\n\"integrity\": \"sha512-x\"}";
        check(rule, "contracts/package-lock.json", lock, &[]);
    }
}
