//! `maddock report`: what is written where, and how it ends.

use crate::playground::{Playground, names};

const TABLE: &str = "model,performance,metric\nm,1.5,<x&y>\nn,,\n";

fn with_table() -> Playground {
    let playground = Playground::new();
    playground.write("work/perf.csv", TABLE);
    playground
}

#[test]
fn to_html_writes_a_table_beside_the_file() {
    let playground = with_table();
    playground.call(&["report", "to-html", "--csv-file-path", "perf.csv"]).exits(0).prints(&["perf.html"]);
    insta::assert_snapshot!(playground.read("perf.html"));
    assert_eq!(names(&playground.work()), ["perf.csv", "perf.html"]);
    assert_eq!(playground.read("perf.csv"), TABLE);
}

#[test]
fn to_html_takes_the_documented_name_of_its_option() {
    let playground = with_table();
    playground.call(&["report", "to-html", "--csv-file", "perf.csv"]).exits(0);
    assert!(playground.work().join("perf.html").exists());
}

#[test]
fn to_html_of_a_file_elsewhere_is_written_there() {
    let playground = Playground::new();
    let file = playground.write("else where/p.csv", TABLE);
    playground.call(&["report", "to-html", "--csv-file-path", file.to_str().unwrap()]).exits(0);
    assert!(file.with_extension("html").exists());
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn to_html_of_a_header_alone_is_a_table_without_rows() {
    let playground = Playground::new();
    playground.write("work/perf.csv", "model,performance\n");
    playground.call(&["report", "to-html", "--csv-file-path", "perf.csv"]).exits(0);
    assert!(!playground.read("perf.html").contains("<td>"));
}

#[test]
fn to_html_of_what_is_no_table_ends_with_1() {
    let playground = Playground::new();
    playground.write("work/empty.csv", "");
    playground.write("work/perf.txt", TABLE);
    playground.write("work/upper.CSV", TABLE);
    std::fs::create_dir(playground.work().join("dir.csv")).unwrap();
    let before = names(&playground.work());
    for name in ["gone.csv", "empty.csv", "perf.txt", "upper.CSV", "dir.csv"] {
        let answer = playground.call(&["report", "to-html", "--csv-file-path", name]).exits(1);
        assert!(answer.stderr.starts_with("error:") && answer.stderr.contains(name), "{answer:#?}");
    }
    assert_eq!(names(&playground.work()), before);
}

#[test]
fn to_email_puts_every_table_of_a_directory_into_one_file_by_name() {
    let playground = Playground::new();
    for (name, text) in [("b.csv", TABLE), ("a.csv", "x\n1\n"), ("not.txt", TABLE), ("deep/c.csv", TABLE)] {
        playground.write(&format!("work/{name}"), text);
    }
    playground.call(&["report", "to-email"]).exits(0).prints(&["run_results.html"]);
    insta::assert_snapshot!(playground.read("run_results.html"));
}

#[test]
fn to_email_writes_where_it_is_told() {
    for option in ["--directory", "--dir"] {
        let playground = Playground::new();
        playground.write("work/d/a.csv", TABLE);
        playground.call(&["report", "to-email", option, "d", "-o", "mail.html"]).exits(0);
        assert!(playground.read("d/mail.html").starts_with("<h2>a</h2>\n<table"));
    }
}

#[test]
fn to_email_of_a_broken_file_tells_it_and_goes_on() {
    let playground = Playground::new();
    playground.write("work/a.csv", "");
    playground.write("work/b.csv", TABLE);
    playground
        .call(&["report", "to-email"])
        .exits(0)
        .says(&["warning: left out", "a.csv"])
        .prints(&["1 of 2 CSV files"]);
    assert!(playground.read("run_results.html").contains("<h2>b</h2>"));
}

#[test]
fn to_email_without_tables_says_so_and_writes_nothing() {
    let playground = Playground::new();
    playground.call(&["report", "to-email"]).exits(0).says(&["no CSV files", "nothing written"]);
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn to_email_of_what_is_no_directory_ends_with_1() {
    let playground = with_table();
    for place in ["gone", "perf.csv"] {
        let answer = playground.call(&["report", "to-email", "--dir", place]).exits(1);
        assert!(answer.stderr.contains(place), "{answer:#?}");
    }
    assert_eq!(names(&playground.work()), ["perf.csv"]);
}

#[test]
fn what_was_written_can_be_had_as_json() {
    let playground = with_table();
    let answer = playground.call(&["report", "to-html", "--csv-file-path", "perf.csv", "--format", "json"]).exits(0);
    let list = answer.json();
    assert!(list[0]["path"].as_str().unwrap().ends_with("/perf.html"));
    assert_eq!(list[0]["media_type"], "text/html");
}

#[test]
fn the_results_of_a_run_make_a_report() {
    let playground = Playground::with("echo 'performance: 1.25 x'");
    playground.run(&["--tags", "m"]).exits(0);
    playground.call(&["report", "to-html", "--csv-file-path", "perf.csv"]).exits(0);
    assert!(playground.read("perf.html").contains("<td>1.25</td>"));
}
