//! Graphs as cargo tells them, and who is found to ask.

use serde_json::{Value, json};

use super::cause::{Want, cause};
use super::metadata::Graph;

/// A line of `[dependencies]`.
fn line(name: &str, features: &[&str], defaults: bool, optional: bool) -> Value {
    json!({
        "name": name, "kind": null, "rename": null, "optional": optional,
        "uses_default_features": defaults, "features": features,
    })
}

fn package(name: &str, lines: &[Value], features: &Value) -> Value {
    json!({
        "id": name, "name": name, "version": "1.0.0", "dependencies": lines, "features": features,
        "targets": [], "manifest_path": format!("/{name}/Cargo.toml"),
    })
}

/// The graph of these packages, of which the first is the guest's, with these lines of `cargo tree`.
fn graph(packages: &[Value], tree: &str) -> Graph {
    let node = |package: &Value| {
        let dep =
            |line: &Value| json!({"pkg": line["name"], "dep_kinds": [{"kind": line["kind"]}]});
        let lines = package["dependencies"].as_array().unwrap();
        json!({"id": package["id"], "deps": lines.iter().map(dep).collect::<Vec<_>>()})
    };
    let nodes: Vec<_> = packages.iter().map(node).collect();
    let metadata = json!({
        "packages": packages, "resolve": {"root": packages[0]["id"], "nodes": nodes},
    });
    Graph::read(&metadata.to_string(), tree).unwrap()
}

/// What is said of why a feature is on, or a package is there.
#[track_caller]
fn told(graph: &Graph, name: &str, feature: Option<&str>) -> (Vec<String>, String) {
    let index = graph
        .packages
        .iter()
        .position(|package| package.name == name);
    let index = index.unwrap();
    let want = match feature {
        Some(feature) => Want::Feature(index, feature.to_owned()),
        None => Want::Package(index),
    };
    let cause = cause(graph, want).expect("somebody asks for it");
    (cause.told(graph).collect(), cause.cure(graph))
}

fn std_by_default() -> Value {
    json!({"default": ["std"], "std": []})
}

#[test]
fn default_features_of_the_guests_own_line_are_named() {
    let guest = package("guest", &[line("parser", &[], true, false)], &json!({}));
    let parser = package("parser", &[], &std_by_default());
    let graph = graph(
        &[guest, parser],
        "guest v1.0.0 (/guest)|\nparser v1.0.0|default,std\n",
    );
    let (steps, cure) = told(&graph, "parser", Some("std"));
    assert_eq!(
        steps,
        [
            "`guest` asks for `parser/default` by its default features",
            "`parser/default` asks for `parser/std`"
        ]
    );
    assert!(cure.contains("`default-features = false` in the line of `parser`"));
}

#[test]
fn a_feature_is_followed_through_the_packages_between() {
    let guest = package("guest", &[line("json", &["std"], false, false)], &json!({}));
    let lines = [
        line("search", &[], false, false),
        line("extra", &[], false, true),
    ];
    let features = json!({"std": ["search/std", "dep:extra"]});
    let json = package("json", &lines, &features);
    let (search, extra) = (
        package("search", &[], &std_by_default()),
        package("extra", &[], &json!({})),
    );
    let tree =
        "guest v1.0.0|\njson v1.0.0|std\nsearch v1.0.0|std\nextra v1.0.0|\nextra v1.0.0| (*)\n";
    let graph = graph(&[guest, json, search, extra], tree);
    let (steps, cure) = told(&graph, "search", Some("std"));
    assert_eq!(
        steps,
        [
            "`guest` asks for `json/std`, which it names",
            "`json/std` asks for `search/std`"
        ]
    );
    assert!(
        cure.contains("take `std` out of the features of `json`"),
        "{cure}"
    );
    // A dependency that is there for the sake of a feature.
    let (steps, _) = told(&graph, "extra", None);
    assert_eq!(steps[1], "`json/std` asks for `extra`");
}

#[test]
fn what_no_feature_of_the_guests_line_decides_is_said_to_be_so() {
    let guest = package("guest", &[line("client", &[], false, false)], &json!({}));
    let client = package("client", &[line("sockets", &[], true, false)], &json!({}));
    let sockets = package("sockets", &[], &std_by_default());
    let tree = "guest v1.0.0|\nclient v1.0.0|\nsockets v1.0.0|default,std\n";
    let graph = graph(&[guest, client, sockets], tree);
    let (steps, cure) = told(&graph, "sockets", Some("std"));
    assert_eq!(steps[0], "`guest` asks for `client`");
    assert_eq!(
        steps[1],
        "`client` asks for `sockets/default` by its default features"
    );
    assert!(
        cure.contains("no feature of `client` switches that off"),
        "{cure}"
    );
}

#[test]
fn features_of_tests_and_of_what_is_not_linked_do_not_count() {
    let mut test = line("parser", &["std"], true, false);
    test["kind"] = json!("dev");
    let lines = [line("parser", &[], false, false), test];
    let guest = package("guest", &lines, &json!({}));
    let parser = package("parser", &[], &std_by_default());
    let macros = package("macros", &[], &json!({}));
    let graph = graph(&[guest, parser, macros], "guest v1.0.0|\nparser v1.0.0|\n");
    assert_eq!(graph.packages.len(), 2);
    assert!(graph.features[1].is_empty());
}
