//! The words and marks of Rust source, without its comments.

/// What source consists of, as far as attributes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, a keyword or a number.
    Word(&'a str),
    /// What stands between double quotes, with its escapes.
    Text(&'a str),
    /// Any other sign.
    Mark(char),
}

impl<'a> Token<'a> {
    pub(super) fn word(&self) -> Option<&'a str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// The tokens of a text. What is left open ends with the text.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = behind_comment(rest);
        } else if first == '"' {
            let (text, behind) = quoted(&rest[1..]);
            all.push(Token::Text(text));
            rest = behind;
        } else if let Some((text, behind)) = raw(rest) {
            all.push(Token::Text(text));
            rest = behind;
        } else if first == '\'' {
            rest = behind_letter(&rest[1..]);
        } else if is_of_word(first) {
            let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
            all.push(Token::Word(&rest[..end]));
            rest = &rest[end..];
        } else {
            all.push(Token::Mark(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    all
}

fn is_of_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// What comes behind a comment in which others may be.
fn behind_comment(text: &str) -> &str {
    let mut depth = 0_u32;
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with("/*") {
            depth += 1;
            rest = &rest[2..];
        } else if rest.starts_with("*/") {
            depth -= 1;
            rest = &rest[2..];
            if depth == 0 {
                return rest;
            }
        } else {
            let mut letters = rest.chars();
            letters.next();
            rest = letters.as_str();
        }
    }
    rest
}

/// A text up to its closing quote, and what comes behind that.
fn quoted(text: &str) -> (&str, &str) {
    let mut is_escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return (&text[..index], &text[index + 1..]),
            _ => {}
        }
    }
    (text, "")
}

/// A text without escapes: `r"..."`, `r#"..."#` and so on.
fn raw(text: &str) -> Option<(&str, &str)> {
    let behind = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let marks = behind.len() - behind.trim_start_matches('#').len();
    let body = behind[marks..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(marks));
    Some(match body.find(&close) {
        Some(end) => (&body[..end], &body[end + close.len()..]),
        None => (body, ""),
    })
}

/// What comes behind the quote before a letter or a lifetime, given what follows that quote.
fn behind_letter(text: &str) -> &str {
    let mut letters = text.chars();
    match letters.next() {
        Some('\\') => {
            letters.next();
            let rest = letters.as_str();
            rest.find('\'').map_or("", |end| &rest[end + 1..])
        }
        Some(_) => letters.as_str().strip_prefix('\'').unwrap_or(text),
        None => "",
    }
}
