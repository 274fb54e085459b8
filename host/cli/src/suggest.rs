//! What somebody meant who swapped two letters of a short subcommand, which clap finds too different.

use clap::error::{ContextKind, ContextValue};
use clap::{Command, Error};

/// The error, with the subcommand that was probably meant, if it is about one and has no suggestion.
pub(super) fn with(mut error: Error, command: &Command) -> Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if error.get(ContextKind::SuggestedSubcommand).is_none()
        && let Some(name) = meant(word, command)
    {
        let name = ContextValue::Strings(vec![name.into()]);
        error.insert(ContextKind::SuggestedSubcommand, name);
    }
    error
}

/// The subcommand that differs from this word by one letter, or by the order of two.
fn meant<'a>(word: &str, command: &'a Command) -> Option<&'a str> {
    let names = command.get_subcommands().filter(|one| !one.is_hide_set());
    names
        .map(Command::get_name)
        .find(|name| strsim::osa_distance(word, name) == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn told(word: &str) -> String {
        let command = crate::Cli::command();
        let error = command.clone().try_get_matches_from(["wakebox", word]);
        with(error.unwrap_err(), &command).to_string()
    }

    #[test]
    fn a_subcommand_with_two_letters_swapped_is_understood_and_nonsense_is_not() {
        for (word, meant) in [("rnu", "run"), ("tpo", "top"), ("doctr", "doctor")] {
            let said = told(word);
            assert!(said.contains(&format!("'{meant}'")), "{said}");
            assert_eq!(said.matches("tip:").count(), 1, "{said}");
        }
        assert!(!told("xyzzy").contains("tip:"));
    }
}
