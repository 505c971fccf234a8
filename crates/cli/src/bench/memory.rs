//! The most memory that this process held at once, mapped files included, since it was last asked to forget. Known on
//! Linux alone; elsewhere the figure is left out.

use std::fs;

/// Forgets what was held before.
pub(crate) fn reset_peak() {
    // Where that cannot be done the peak is that of the whole process, which is still true of it.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

pub(crate) fn peak() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM:     1234 kB`.
fn parse(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_where_it_is_written() {
        let status = "Name:\tassay\nVmPeak:\t  9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t    7 kB\n";
        assert_eq!(parse(status), Some(1234 * 1024));
        assert_eq!(parse("Name:\tassay\n"), None);
    }
}
