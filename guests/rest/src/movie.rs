use serde::Deserialize;

/// What a client may post. Other members are tolerated, as the database ignores them.
#[derive(Deserialize)]
struct Movie {
    #[serde(rename = "title")]
    _title: String,
    #[serde(rename = "description")]
    _description: Option<String>,
}

/// The posted text if it is a movie, otherwise what is wrong with it and where.
pub(crate) fn checked(body: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(body).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        format!("the body is not UTF-8 text: see the byte at offset {position}")
    })?;
    // serde would also read a movie from an array of its members.
    if text.trim_start().starts_with('[') {
        return Err("the body is an array; expected an object with a `title`".to_owned());
    }
    match serde_json::from_str::<Movie>(&text) {
        Ok(_) => Ok(text),
        Err(error) if error.is_data() => Err(format!("the body is not a movie: {error}")),
        Err(error) => Err(format!("the body is not JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<(), &str>) {
        let actual = checked(body.as_bytes().to_vec());
        let expected = expected.map(|()| body.to_owned()).map_err(str::to_owned);
        assert_eq!(actual, expected);
    }

    #[test]
    fn a_movie_is_passed_on_as_it_was_written() {
        check(r#"{"title":"Alien"}"#, Ok(()));
        check(r#" { "title": "Alien", "description": null } "#, Ok(()));
        check(r#"{"title":"Alien","year":1979}"#, Ok(()));
    }

    #[test]
    fn broken_json_is_located() {
        check(
            r#"{"title":"Alien""#,
            Err("the body is not JSON: EOF while parsing an object at line 1 column 16"),
        );
        check(
            "{\n  title: 1}",
            Err("the body is not JSON: key must be a string at line 2 column 3"),
        );
        check(
            "",
            Err("the body is not JSON: EOF while parsing a value at line 1 column 0"),
        );
    }

    #[test]
    fn json_of_another_shape_is_named() {
        check(
            "{}",
            Err("the body is not a movie: missing field `title` at line 1 column 2"),
        );
        check(
            r#"{"title":7}"#,
            Err(
                "the body is not a movie: invalid type: integer `7`, expected a string at line 1 column 10",
            ),
        );
        check(
            r#"["Alien"]"#,
            Err("the body is an array; expected an object with a `title`"),
        );
        check(
            r#"{"title":"Alien","description":[]}"#,
            Err(
                "the body is not a movie: invalid type: sequence, expected a string at line 1 column 31",
            ),
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_located() {
        let error = checked(b"{\"\xff".to_vec()).unwrap_err();
        assert!(error.ends_with("offset 2"), "{error}");
    }
}
