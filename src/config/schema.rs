//! The JSON Schema of the configuration, made from the types.

use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Value, json};

use super::types::Config;

/// The keyword by which a format hands over what is allowed. The finished schema does not have it.
pub(super) const ALLOWED: &str = "x-allowed";

/// Returns the JSON Schema of a configuration file, in draft 7, which editors and Helm support.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with_transform(RecursiveTransform(finish));
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

fn finish(schema: &mut Schema) {
    // Editors show only the description of a key, so that is where its allowed values must be.
    if let Some(Value::String(allowed)) = schema.remove(ALLOWED) {
        let meaning = schema.get("description").and_then(Value::as_str).map(|meaning| format!("{meaning}\n\n"));
        let description = format!("{}Allowed: {allowed}.", meaning.unwrap_or_default());
        schema.insert("description".to_owned(), description.into());
    }
    // YAML 1.1 tools turn `off` into `false`.
    if let Some(Value::Array(words)) = schema.get_mut("enum")
        && words.contains(&json!("off"))
        && !words.contains(&json!(false))
    {
        words.push(json!(false));
    }
}
