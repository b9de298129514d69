//! The OpenAPI document, made complete: what holds of every operation is said here, once.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// What names look like, wherever they are asked for: by the name of a parameter or of a field.
const NAMES: [(&str, &str); 4] = [
    ("service", SERVICE),
    ("service_name", SERVICE),
    ("instance", SERVICE),
    ("method", "^[A-Za-z-]{1,16}$"),
];
const SERVICE: &str = "^[A-Za-z0-9._-]{1,64}$";

/// The document as it is served.
pub(super) fn complete(document: &OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["components"]["schemas"]["Problem"] = problem();
    document["components"]["securitySchemes"] = json!({
        "key": {"type": "http", "scheme": "bearer", "description": "An API key, once there is one."},
    });
    // As long as there is none, nobody is asked for it.
    document["security"] = json!([{"key": []}, {}]);
    bound_integers(&mut document);
    let paths = document["paths"].take();
    let paths = paths.as_object().cloned().unwrap_or_default();
    let mut plain = Map::new();
    for (path, mut item) in paths {
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            complete_operation(operation);
        }
        // OpenAPI has no `{*endpoint}`.
        plain.insert(path.replace("{*", "{"), item);
    }
    document["paths"] = plain.into();
    let schemas = document["components"]["schemas"].as_object_mut();
    for schema in schemas.into_iter().flat_map(Map::values_mut) {
        let fields = schema.get_mut("properties");
        let fields = fields.and_then(Value::as_object_mut);
        for (name, field) in fields.into_iter().flatten() {
            say_pattern(name, field);
        }
    }
    document
}

fn complete_operation(operation: &mut Value) {
    operation["responses"]["default"] = json!({
        "description": "what was wrong, and what to do",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    let parameters = operation.get_mut("parameters");
    let parameters = parameters.and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        say_pattern(&name, &mut parameter["schema"]);
    }
}

fn say_pattern(name: &str, schema: &mut Value) {
    if name == "services" && schema["items"]["type"] == "string" {
        schema["anyOf"] = json!([
            {"items": {"type": "string", "pattern": SERVICE}, "minItems": 1, "maxItems": 100},
            {"const": ["*"]},
        ]);
    }
    let known = NAMES.iter().find(|(known, _)| *known == name);
    if let Some((_, pattern)) = known
        && let Some(schema) = schema.as_object_mut()
        && schema.get("type") == Some(&json!("string"))
    {
        schema.insert("pattern".to_owned(), json!(pattern));
    }
}

/// Numbers without a sign are said to be `int32` or `int64`, which end at half of what is taken.
fn bound_integers(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(bound_integers),
        Value::Object(fields) => {
            let is_unsigned = fields.get("minimum") == Some(&json!(0));
            let most = match fields.get("format").and_then(Value::as_str) {
                Some("int32") if is_unsigned => Some(json!(u32::MAX)),
                Some("int64") if is_unsigned => Some(json!(u64::MAX)),
                _ => None,
            };
            if let Some(most) = most {
                fields.remove("format");
                fields.entry("maximum").or_insert(most);
            }
            fields.values_mut().for_each(bound_integers);
        }
        _ => {}
    }
}

/// RFC 9457, section 3.
fn problem() -> Value {
    json!({
        "type": "object",
        "description": "What was wrong (RFC 9457).",
        "required": ["title", "status"],
        "properties": {
            "title": {"type": "string", "description": "The status, in words."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is wrong, and what to do next."},
        },
    })
}
