//! Colours, on a terminal only.

use std::io::IsTerminal;

/// Who sets this variable wants none (no-color.org).
const NO_COLOUR_VARIABLE: &str = "NO_COLOR";

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Bad,
}

/// The text as stdout shall have it.
pub(crate) fn coloured(colour: Colour, text: &str) -> String {
    let wanted = std::env::var_os(NO_COLOUR_VARIABLE).is_none_or(|value| value.is_empty());
    if !wanted || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Good => 32,
        Colour::Bad => 31,
    };
    format!("\x1b[1;{code}m{text}\x1b[0m")
}
