//! Keys with a short form: `listen: ADDRESS`, `upstream: URL`, `on_server_loss: propagate`, and one entry without its
//! list. serde's own untagged enumerations lose the path to a fault inside, so these read by visitors.

use std::{fmt, marker::PhantomData};

use garde::{Path, Report, Validate};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        DeserializeOwned, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

// A scalar, or the longer form `L`. Documentation would be in the JSON Schema of each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Either<S, L> {
    Short(S),
    Long(L),
}

impl<S: Validate<Context = ()>, L: Validate<Context = ()>> Validate for Either<S, L> {
    type Context = ();

    fn validate_into(&self, (): &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        match self {
            Self::Short(short) => short.validate_into(&(), parent, report),
            Self::Long(long) => long.validate_into(&(), parent, report),
        }
    }
}

impl<'de, S: Deserialize<'de> + JsonSchema, L: Deserialize<'de>> Deserialize<'de> for Either<S, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}

struct EitherVisitor<S, L>(PhantomData<(S, L)>);

impl<'de, S: Deserialize<'de> + JsonSchema, L: Deserialize<'de>> Visitor<'de> for EitherVisitor<S, L> {
    type Value = Either<S, L>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The schema of a setting is named by what it allows.
        f.write_str(&S::schema_name())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        S::deserialize(text.into_deserializer()).map(Either::Short)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        L::deserialize(MapAccessDeserializer::new(map)).map(Either::Long)
    }
}

/// A section, or the value of the one key that its short form sets.
pub(super) trait Shorthand: DeserializeOwned {
    /// The type of that key.
    type Short: DeserializeOwned + JsonSchema;

    fn from_short(short: Self::Short) -> Self;
}

fn long<L: Shorthand>(either: Either<L::Short, L>) -> L {
    match either {
        Either::Short(value) => L::from_short(value),
        Either::Long(section) => section,
    }
}

/// Reads a section in either form.
pub(super) fn section<'de, D: Deserializer<'de>, L: Shorthand>(deserializer: D) -> Result<L, D::Error> {
    Either::<L::Short, L>::deserialize(deserializer).map(long)
}

/// Reads a section that may be missing, in either form.
pub(super) fn optional<'de, D: Deserializer<'de>, L: Shorthand>(deserializer: D) -> Result<Option<L>, D::Error> {
    section(deserializer).map(Some)
}

/// Reads a list of sections in either form, or a single one.
pub(super) fn sections<'de, D: Deserializer<'de>, L: Shorthand>(deserializer: D) -> Result<Vec<L>, D::Error> {
    let sections: Vec<Either<L::Short, L>> = one_or_list(deserializer)?;
    Ok(sections.into_iter().map(long).collect())
}

/// Reads a list, or a single entry.
pub(super) fn one_or_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(ListVisitor(PhantomData))
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry, or a list of entries")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(text.into_deserializer()).map(|entry| vec![entry])
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<T>, E> {
        T::deserialize(number.into_deserializer()).map(|entry| vec![entry])
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|entry| vec![entry])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list))
    }
}
