//! The uses between modules: `ARCHITECTURE.md` draws those of the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The modules that each module uses.
type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn architecture_draws_the_arrows_of_the_code() {
    let (drawn, found) = (drawn(), found());

    for (module, used) in &found {
        let allowed = drawn.get(module).unwrap_or_else(|| panic!("ARCHITECTURE.md does not know {module}"));
        let unknown: Vec<_> = used.difference(allowed).collect();
        assert!(unknown.is_empty(), "{module} uses {unknown:?}, which ARCHITECTURE.md does not draw");
        let gone: Vec<_> = allowed.difference(used).collect();
        assert!(gone.is_empty(), "ARCHITECTURE.md draws arrows from {module} that are gone: {gone:?}");
    }
    assert_eq!(drawn.len(), found.len(), "ARCHITECTURE.md knows modules that are gone");
}

/// Removes the modules that use no other one, until no module is left.
#[test]
fn arrows_form_no_cycle() {
    let mut left = found();
    while !left.is_empty() {
        let count = left.len();
        let modules: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, used| !used.is_disjoint(&modules));
        assert!(left.len() < count, "a circle: {left:?}");
    }
}

/// The lines `module -> module, module` in the block of arrows.
fn drawn() -> Arrows {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let block = text.split("```arrows\n").nth(1).unwrap().split("```").next().unwrap();
    let arrows = block.lines().map(|line| {
        let (module, used) = line.split_once("->").unwrap();
        let used = used.split([',', ' ']).filter(|name| !name.is_empty() && *name != "nothing");
        (module.trim().to_owned(), used.map(str::to_owned).collect())
    });
    arrows.collect()
}

fn found() -> Arrows {
    let mut arrows = Arrows::new();
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if module != "lib" {
            let mut used = BTreeSet::new();
            gather(&path, &mut used);
            used.remove(&module);
            arrows.insert(module, used);
        }
    }
    arrows
}

/// Collects the modules that a file, or any file of a folder, uses.
fn gather(path: &Path, used: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            gather(&entry.unwrap().path(), used);
        }
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code: String = text.split_inclusive('\n').filter(is_code).collect();
    for root in ["crate::", "closewatch::"] {
        for paths in code.split(root).skip(1) {
            used.extend(first_names(paths));
        }
    }
}

/// The first names of the paths after `crate::`: one path, or a group of paths.
fn first_names(paths: &str) -> Vec<String> {
    let Some(group) = paths.strip_prefix('{') else { return vec![first_name(paths)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (place, character) in group.char_indices() {
        match character {
            '}' if depth == 0 => {
                names.push(first_name(&group[start..place]));
                break;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&group[start..place]));
                start = place + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}
