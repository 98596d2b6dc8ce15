use serde_json::{Map, Value};

/// Query parameters as Node's `querystring` gives them: a name that occurs more than once becomes
/// an array.
pub(crate) fn as_object(query: Vec<(String, String)>) -> Value {
    let mut object = Map::new();
    for (name, value) in query {
        let value = Value::String(value);
        match object.get_mut(&name) {
            None => {
                object.insert(name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(query: &[(&str, &str)], expected: Value) {
        let query = query
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(as_object(query), expected);
    }

    #[test]
    fn parameters_become_members() {
        check(&[], json!({}));
        check(
            &[("title", "Alien"), ("x", "")],
            json!({"title": "Alien", "x": ""}),
        );
    }

    #[test]
    fn a_repeated_parameter_becomes_an_array() {
        check(
            &[("t", "a"), ("t", "b"), ("t", "c")],
            json!({"t": ["a", "b", "c"]}),
        );
    }
}
