//! Clients that other people wrote, against the real program. Ignored in a plain run: `cargo xtask test` runs them
//! where `cargo xtask setup` has installed what they need.

mod support;

use std::path::Path;
use std::process::Command;
use support::Market;

#[test]
#[ignore = "needs the openai package: run `cargo xtask setup`, then `cargo xtask test`"]
fn the_official_openai_package_is_served_as_its_users_expect() {
    let python = std::env::var("ASSAY_TEST_PYTHON")
        .expect("`cargo xtask test` names the Python environment");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/openai_client.py");
    let data = tempfile::tempdir().unwrap();
    let market = Market::start(data.path(), &[]);
    let status = Command::new(python)
        .arg(script)
        .args([market.url(), market.model()])
        .status()
        .unwrap();
    assert!(
        status.success(),
        "the openai package was not served as expected; see above"
    );
    assert!(market.interrupt().success());
}
