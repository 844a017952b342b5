//! Which module may use which: what `ARCHITECTURE.md` draws is what the code does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// For each module those that it uses.
type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_arrows_are_those_of_the_architecture() {
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

/// Whoever is free of arrows to the others can be taken away, until nobody is left.
#[test]
fn the_arrows_go_one_way() {
    let mut left = found();
    while !left.is_empty() {
        let count = left.len();
        let modules: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, used| !used.is_disjoint(&modules));
        assert!(left.len() < count, "a circle: {left:?}");
    }
}

/// The lines `module -> module, module` of the architecture's block of arrows.
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

/// The modules that a file, or all files of a folder, use.
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
        for behind in code.split(root).skip(1) {
            used.extend(first_names(behind));
        }
    }
}

/// The first names of what stands behind `crate::`: one path, or a group of them.
fn first_names(behind: &str) -> Vec<String> {
    let Some(group) = behind.strip_prefix('{') else { return vec![first_name(behind)] };
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
