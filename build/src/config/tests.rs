use super::{Source, parse};

/// What the user sees: the fault and its excerpt.
fn fault(text: &str) -> String {
    match parse(Source { name: "x.yml", text }, &mut |folder| Err(format!("no folder {folder}").into())) {
        Ok(config) => format!("accepted as {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_fault_is_shown_with_its_line_and_carets() {
    let text = "kernel:\n  image: k\nservics:\n  - name: a\n";
    let shown = "unknown field `servics`, did you mean `services`?\n --> x.yml:3:1\n  |\n3 | servics:\n  | ^^^^^^^";
    assert_eq!(fault(text), shown);
}
