//! All mutants of a file written into it at once, each behind a switch: `crate::mutated(number)`.
//!
//! Nothing is taken away, only put around: what a mutant replaces stands beside it, unchanged, and may itself hold mutants.

use crate::mutant::{Genre, Mutant, Number};
use crate::syntax::{Piece, Syntax};
use std::collections::BTreeMap;

/// A file with its mutants.
pub(crate) struct Woven {
    pub(crate) text: String,
    /// Which bytes of it belong to which mutant: where the compiler complains there, that mutant does not compile.
    pub(crate) places: Vec<(Piece, Number)>,
    /// Mutants that can only be made by replacing: of conditions that bind names.
    pub(crate) left_out: Vec<Number>,
}

/// At one byte ends come before beginnings; the inner one ends first, the outer one begins first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    at: usize,
    begins: bool,
    size: isize,
}

struct Put {
    order: Order,
    text: String,
}

pub(crate) fn weave(text: &str, mutants: &[(Number, &Mutant)]) -> syn::Result<Woven> {
    let syntax = Syntax::read(text)?;
    let mut puts = Vec::new();
    let mut begin = |at, size: usize, text| {
        puts.push(Put { order: Order { at, begins: true, size: -size.cast_signed() }, text });
    };
    let mut choices: BTreeMap<(usize, usize), String> = BTreeMap::new();
    let mut ends: Vec<(usize, usize, String)> = Vec::new();
    let mut left_out = Vec::new();
    // Larger than any expression, and smaller than any file is long.
    let outermost = text.len();
    for (number, mutant) in mutants {
        let start = syntax.at(mutant.span.start);
        let with = &mutant.replacement;
        let mut choose = |whole: &Piece, instead: String| {
            *choices.entry((whole.start, whole.end)).or_default() +=
                &format!("if crate::mutated({number}) {{ {instead} }} else ");
        };
        match mutant.genre {
            Genre::FnValue => begin(start, outermost, format!("if crate::mutated({number}) {{ return {with}; }} ")),
            Genre::BinaryOperator => match syntax.binary.get(&start) {
                Some(found) if !found.binds => {
                    let (left, right) = (&text[found.left.clone()], &text[found.right.clone()]);
                    choose(&found.whole, format!("{left} {with} {right}"));
                }
                _ => left_out.push(*number),
            },
            Genre::UnaryOperator => match syntax.unary.get(&start) {
                Some((operand, whole)) => choose(whole, text[operand.clone()].to_owned()),
                None => left_out.push(*number),
            },
            Genre::MatchArmGuard => match syntax.guards.get(&start) {
                Some(guard) => choose(guard, with.clone()),
                None => left_out.push(*number),
            },
            Genre::MatchArm => match syntax.arms.get(&start) {
                Some(arm) => match &arm.guard {
                    Some(guard) => {
                        begin(guard.start, outermost, format!("!crate::mutated({number}) && ("));
                        ends.push((guard.end, outermost, ")".to_owned()));
                    }
                    None => ends.push((arm.pattern_end, outermost, format!(" if !crate::mutated({number})"))),
                },
                None => left_out.push(*number),
            },
            Genre::StructField => match syntax.fields.get(&start) {
                Some(field) if field.base.is_some() => {
                    let base = field.base.clone().map(|base| &text[base]).unwrap_or_default();
                    let other = format!("if crate::mutated({number}) {{ ({base}).{} }} else {{ ", field.name);
                    match &field.value {
                        Some(value) => {
                            begin(value.start, outermost, other);
                            ends.push((value.end, outermost, " }".to_owned()));
                        }
                        None => ends.push((field.whole.end, outermost, format!(": {other}{} }}", field.name))),
                    }
                }
                _ => left_out.push(*number),
            },
        }
    }
    for ((start, end), alternatives) in choices {
        begin(start, end - start, format!("({alternatives}{{ "));
        ends.push((end, end - start, " })".to_owned()));
    }
    let ends = ends
        .into_iter()
        .map(|(at, size, text)| Put { order: Order { at, begins: false, size: size.cast_signed() }, text });
    puts.extend(ends);
    puts.sort_by(|one, other| one.order.cmp(&other.order));
    let (text, places) = put_in(text, &puts);
    Ok(Woven { text, places, left_out })
}

fn put_in(text: &str, puts: &[Put]) -> (String, Vec<(Piece, Number)>) {
    let (mut out, mut at, mut places) = (String::new(), 0, Vec::new());
    for put in puts {
        out += &text[at..put.order.at];
        at = put.order.at;
        places.extend(
            numbers_in(&put.text).map(|(piece, number)| (piece.start + out.len()..piece.end + out.len(), number)),
        );
        out += &put.text;
    }
    out += &text[at..];
    (out, places)
}

/// Which part of what is put in belongs to which mutant: from its switch to the next one's.
fn numbers_in(put: &str) -> impl Iterator<Item = (Piece, Number)> {
    const SWITCH: &str = "crate::mutated(";
    let starts: Vec<usize> = put.match_indices(SWITCH).map(|(at, _)| at).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([put.len()]).collect();
    let number = |at: usize| put[at + SWITCH.len()..].split(')').next().and_then(|digits| digits.parse().ok());
    let found: Vec<_> = starts.into_iter().zip(ends).filter_map(|(at, end)| Some((at..end, number(at)?))).collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutant::{Place, Span};

    fn mutant(genre: Genre, column: usize, replacement: &str) -> Mutant {
        let (name, file) = (String::new(), String::new());
        let span = Span { start: Place { line: 1, column } };
        Mutant { name, file, genre, replacement: replacement.to_owned(), span }
    }

    fn woven(text: &str, mutants: &[Mutant]) -> Woven {
        let numbered: Vec<_> = mutants.iter().enumerate().map(|(index, mutant)| (index + 1, mutant)).collect();
        weave(text, &numbered).unwrap()
    }

    #[test]
    fn what_is_mutated_stands_beside_its_mutants() {
        let text = "fn f(a: u8, b: u8) -> bool { !(a < b) }";
        let all = [
            mutant(Genre::FnValue, 30, "true"),
            mutant(Genre::UnaryOperator, 30, ""),
            mutant(Genre::BinaryOperator, 34, "=="),
            mutant(Genre::BinaryOperator, 34, ">"),
        ];
        let found = woven(text, &all);
        assert_eq!(
            found.text,
            "fn f(a: u8, b: u8) -> bool { if crate::mutated(1) { return true; } (if crate::mutated(2) { (a < b) } else \
             { !((if crate::mutated(3) { a == b } else if crate::mutated(4) { a > b } else { a < b })) }) }"
        );
        syn::parse_file(&found.text).unwrap();
        for (piece, number) in &found.places {
            assert!(found.text[piece.clone()].starts_with(&format!("crate::mutated({number})")));
        }
        assert_eq!(found.left_out, Vec::<Number>::new());
    }

    #[test]
    fn arms_guards_and_fields_can_be_switched_off() {
        let text =
            "fn f(n: u8) -> S { match n { 1 if ok() => S { a: 2, ..S::new() }, 2 => S { b, ..g() }, _ => g() } }";
        let column = |part: &str| text.find(part).unwrap() + 1;
        let all = [
            mutant(Genre::MatchArm, column("1 if"), ""),
            mutant(Genre::MatchArmGuard, column("ok()"), "false"),
            mutant(Genre::MatchArm, column("2 =>"), ""),
            mutant(Genre::StructField, column("a: 2"), ""),
            mutant(Genre::StructField, column("b, .."), ""),
        ];
        let found = woven(text, &all);
        assert_eq!(
            found.text,
            "fn f(n: u8) -> S { match n { 1 if !crate::mutated(1) && ((if crate::mutated(2) { false } else { ok() })) \
             => S { a: if crate::mutated(4) { (S::new()).a } else { 2 }, ..S::new() }, 2 if !crate::mutated(3) \
             => S { b: if crate::mutated(5) { (g()).b } else { b }, ..g() }, _ => g() } }"
        );
        syn::parse_file(&found.text).unwrap();
    }

    #[test]
    fn a_condition_that_binds_a_name_is_left_out() {
        let text = "fn f(a: bool, b: Option<u8>) { if a && let Some(_) = b { g() } }";
        let found = woven(text, &[mutant(Genre::BinaryOperator, text.find("&&").unwrap() + 1, "||")]);
        assert_eq!((found.text.as_str(), found.left_out), (text, vec![1]));
    }
}
