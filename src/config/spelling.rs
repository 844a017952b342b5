//! Which key a misspelt one was meant to be.

/// The known key that `key` was most likely meant to be.
pub(super) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    const LONGEST: usize = 40;
    if key.len() > LONGEST {
        return None;
    }
    let by_distance = known.iter().map(|known| (distance(key, known), *known));
    by_distance.min().filter(|(distance, known)| *distance <= known.len().div_ceil(3)).map(|(_, known)| known)
}

/// How many letters must be put in, taken out or changed to make `left` of `right` (Levenshtein's distance). `-` for
/// `_` and upper for lower case cost nothing.
fn distance(left: &str, right: &str) -> usize {
    let left = left.to_ascii_lowercase().replace('-', "_");
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 0..right.len() {
            let changed = diagonal + usize::from(character != right[column]);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let known = ["listen", "upstream", "limits", "log", "request_head"];
        let cases = [
            ("lisen", Some("listen")),
            ("Listen", Some("listen")),
            ("upstraem", Some("upstream")),
            ("request-head", Some("request_head")),
            ("logs", Some("log")),
            ("tls", None),
            ("server", None),
            ("", None),
        ];
        for (key, expected) in cases {
            assert_eq!(nearest(key, &known), expected, "{key}");
        }
        assert_eq!(nearest(&"listen".repeat(100_000), &known), None);
    }
}
