//! `benches/headlines.tsv` and the figures of README.md and docs/performance.md agree.

use crate::assert_none;
use crate::tree::root;

/// A complaint for each line that has not eight columns, or whose words are not in its file.
fn complaints(table: &str, read: impl Fn(&str) -> String) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [file, words, _, _, _, _, ratio, _] = columns[..] else {
            complaints.push(format!("{} columns: {line}", columns.len()));
            continue;
        };
        if !read(file).contains(words) {
            complaints.push(format!("{file} does not say: {words}"));
        }
        if ratio.parse::<f64>().is_err() {
            complaints.push(format!("no ratio: {line}"));
        }
    }
    complaints
}

#[test]
fn stated_figures_can_be_repeated() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect(file);
    assert_none(&complaints(&read("benches/headlines.tsv"), read));
}

#[test]
fn figures_that_are_not_stated_are_found() {
    let text = |_: &str| "It takes 0.16 of it.".to_owned();
    let table =
        "# a comment\na.md\t0.16\tb\tr\tx\ty\t0.16\tcpu\na.md\t0.17\tb\tr\tx\ty\tz\tcpu\na.md\t1";
    assert_eq!(complaints(table, text).len(), 3);
}
