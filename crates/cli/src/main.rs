//! The program `assay`.

fn main() {}
