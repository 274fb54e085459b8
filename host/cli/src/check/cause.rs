//! Who asks for what wants `std`: from a package and its feature up to a line of the guest's manifest.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use super::metadata::{Declared, Graph, Package};

/// Something that is there because somebody asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    /// A package.
    Package(usize),
    /// A feature of one.
    Feature(usize, String),
}

/// How something was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// By a line of a manifest, as it stands there.
    Line,
    /// By a line of a manifest that has not `default-features = false`.
    Defaults,
    /// By `features = [...]` in a line of a manifest.
    Named(String),
    /// By a feature of the same package or of the one that depends on it.
    Feature,
}

/// Why something is there: a step for each that asks, from the guest's own crate on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// What is asked for, and how, beginning with what the guest asks for.
    steps: Vec<(Want, Way)>,
}

/// Finds the shortest way from the guest's crate to `want`. `None` if nobody is found who asks.
pub(super) fn cause(graph: &Graph, want: Want) -> Option<Cause> {
    let mut came = HashMap::from([(want.clone(), None)]);
    let mut queue = VecDeque::from([want]);
    while let Some(want) = queue.pop_front() {
        for (asker, way) in askers(graph, &want) {
            let is_guest = matches!(asker, Want::Package(0) | Want::Feature(0, _));
            if is_guest {
                let mut steps = vec![(want.clone(), way)];
                let mut at = want;
                while let Some(Some((next, way))) = came.remove(&at) {
                    steps.push((Want::clone(&next), way));
                    at = next;
                }
                return Some(Cause { steps });
            }
            if !came.contains_key(&asker) {
                came.insert(asker.clone(), Some((want.clone(), way)));
                queue.push_back(asker);
            }
        }
    }
    None
}

/// Who asks for it directly.
fn askers(graph: &Graph, want: &Want) -> Vec<(Want, Way)> {
    let mut found = Vec::new();
    let (index, feature) = match want {
        Want::Package(index) => (*index, None),
        Want::Feature(index, feature) => (*index, Some(&**feature)),
    };
    if let Some(feature) = feature {
        for (other, enables) in on(graph, index) {
            if enables.iter().any(|enabled| enabled == feature) {
                found.push((Want::Feature(index, other.to_owned()), Way::Feature));
            }
        }
    }
    for &parent in &graph.parents[index] {
        let package = &graph.packages[parent];
        for line in package.declared(&graph.packages[index].name) {
            if let Some(way) = way_of(line, feature) {
                let enabling = on(graph, parent).filter(|(name, enables)| {
                    line.optional && enables_line(line, name, enables, None)
                });
                match line.optional {
                    true => found
                        .extend(enabling.map(|(name, _)| {
                            (Want::Feature(parent, name.to_owned()), way.clone())
                        })),
                    false => found.push((Want::Package(parent), way)),
                }
            }
            let by_feature = on(graph, parent).filter(|(name, enables)| {
                feature.is_some() && enables_line(line, name, enables, feature)
            });
            found.extend(
                by_feature.map(|(name, _)| (Want::Feature(parent, name.to_owned()), Way::Feature)),
            );
        }
    }
    found
}

/// How a line asks for the package, or for a feature of it; `None` if it does not.
fn way_of(line: &Declared, feature: Option<&str>) -> Option<Way> {
    match feature {
        None => Some(Way::Line),
        Some(feature) if line.features.iter().any(|named| named == feature) => {
            Some(Way::Named(feature.to_owned()))
        }
        Some("default") if line.uses_default_features => Some(Way::Defaults),
        Some(_) => None,
    }
}

/// Whether a feature of a package switches on the dependency of this line, or that feature of it.
fn enables_line(line: &Declared, name: &str, enables: &[String], feature: Option<&str>) -> bool {
    let known = line.rename.as_deref().unwrap_or(&line.name);
    enables.iter().any(|enabled| {
        let (dependency, of_it) = match enabled.split_once('/') {
            Some((dependency, feature)) => (dependency, Some(feature)),
            None => (enabled.strip_prefix("dep:").unwrap_or(enabled), None),
        };
        match feature {
            Some(_) => dependency.trim_end_matches('?') == known && of_it == feature,
            // With a question mark it is for who has switched it on otherwise.
            None => dependency == known,
        }
    }) || feature.is_none() && name == known
}

/// The features of a package that are on, with what each switches on.
fn on(graph: &Graph, index: usize) -> impl Iterator<Item = (&str, &[String])> {
    graph.features[index].iter().map(move |name| {
        let enables = graph.packages[index].features.get(name);
        (&**name, enables.map_or(&[][..], Vec::as_slice))
    })
}

impl Cause {
    /// What stands first in the guest's manifest.
    fn first(&self) -> (&Want, &Way) {
        let (want, way) = &self.steps[0];
        (want, way)
    }

    /// The package that the guest itself depends on.
    pub(super) fn dependency<'g>(&self, graph: &'g Graph) -> &'g Package {
        match self.first().0 {
            Want::Package(index) | Want::Feature(index, _) => &graph.packages[*index],
        }
    }

    /// What to write into the guest's manifest. Nothing helps in some cases: a library without `std` has to be
    /// found then.
    pub(super) fn cure(&self, graph: &Graph) -> String {
        let name = &self.dependency(graph).name;
        match self.first() {
            (_, Way::Defaults) => format!(
                "have `default-features = false` in the line of `{name}` in Cargo.toml, and name the \
                 features that you need"
            ),
            (_, Way::Named(feature)) => {
                format!("take `{feature}` out of the features of `{name}` in Cargo.toml")
            }
            (_, Way::Feature) => format!(
                "take what switches that on out of `[features]` in Cargo.toml, where `{name}` is meant"
            ),
            (_, Way::Line) => format!(
                "no feature of `{name}` switches that off: look for another version, or for a crate \
                 that does without"
            ),
        }
    }

    /// One line for each step.
    pub(super) fn told<'a>(&'a self, graph: &'a Graph) -> impl Iterator<Item = String> + 'a {
        let mut asker = format!("`{}`", graph.packages[0].name);
        self.steps.iter().map(move |(want, way)| {
            let shown = Shown(graph, want).to_string();
            let how = match way {
                Way::Defaults => " by its default features",
                Way::Named(_) => ", which it names",
                Way::Line | Way::Feature => "",
            };
            let line = format!("{asker} asks for {shown}{how}");
            asker = shown;
            line
        })
    }
}

/// A want in words.
struct Shown<'a>(&'a Graph, &'a Want);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Want::Package(index) => write!(f, "`{}`", self.0.packages[*index].name),
            Want::Feature(index, feature) => {
                write!(f, "`{}/{feature}`", self.0.packages[*index].name)
            }
        }
    }
}
