//! Where in a file the parts of an expression lie that a mutant changes.

use crate::mutant::Place;
use proc_macro2::LineColumn;
use std::collections::BTreeMap;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A piece of the file, in bytes.
pub(crate) type Piece = Range<usize>;

pub(crate) struct Binary {
    pub(crate) left: Piece,
    pub(crate) right: Piece,
    pub(crate) whole: Piece,
    /// One side binds a name: it cannot be written twice.
    pub(crate) binds: bool,
}

pub(crate) struct Arm {
    /// Where its pattern ends.
    pub(crate) pattern_end: usize,
    pub(crate) guard: Option<Piece>,
}

pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) whole: Piece,
    /// `None` for the shorthand.
    pub(crate) value: Option<Piece>,
    /// What the other fields are taken from.
    pub(crate) base: Option<Piece>,
}

/// Everything of interest, by where it begins: operators by the operator, the rest by its first byte.
#[derive(Default)]
pub(crate) struct Syntax {
    lines: Vec<usize>,
    text: String,
    pub(crate) binary: BTreeMap<usize, Binary>,
    /// The operand and the whole.
    pub(crate) unary: BTreeMap<usize, (Piece, Piece)>,
    pub(crate) guards: BTreeMap<usize, Piece>,
    pub(crate) arms: BTreeMap<usize, Arm>,
    pub(crate) fields: BTreeMap<usize, Field>,
}

impl Syntax {
    pub(crate) fn read(text: &str) -> syn::Result<Self> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut syntax = Self { lines, text: text.to_owned(), ..Self::default() };
        syntax.visit_file(&syn::parse_file(text)?);
        Ok(syntax)
    }

    /// The byte at a place whose column counts characters from 1.
    pub(crate) fn at(&self, place: Place) -> usize {
        self.offset(place.line, place.column - 1)
    }

    fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.lines.get(line - 1).copied().unwrap_or(self.text.len());
        let rest = &self.text[start..];
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }

    fn byte(&self, at: LineColumn) -> usize {
        self.offset(at.line, at.column)
    }

    fn piece(&self, of: &impl Spanned) -> Piece {
        let span = of.span();
        self.byte(span.start())..self.byte(span.end())
    }
}

fn binds(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(inner) => binds(&inner.left) || binds(&inner.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Syntax {
    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        let found = Binary {
            left: self.piece(&expr.left),
            right: self.piece(&expr.right),
            whole: self.piece(expr),
            binds: binds(&expr.left) || binds(&expr.right),
        };
        self.binary.insert(self.piece(&expr.op).start, found);
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        self.unary.insert(self.piece(&expr.op).start, (self.piece(&expr.expr), self.piece(expr)));
        visit::visit_expr_unary(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let guard = arm.guard.as_ref().map(|(_, guard)| self.piece(guard));
        if let Some(guard) = &guard {
            self.guards.insert(guard.start, guard.clone());
        }
        let found = Arm { pattern_end: self.piece(&arm.pat).end, guard };
        self.arms.insert(self.piece(arm).start, found);
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        for field in &expr.fields {
            let name = match &field.member {
                syn::Member::Named(name) => name.to_string(),
                syn::Member::Unnamed(index) => index.index.to_string(),
            };
            let value = field.colon_token.as_ref().map(|_| self.piece(&field.expr));
            let base = expr.rest.as_ref().map(|base| self.piece(base));
            let whole = self.piece(field);
            self.fields.insert(whole.start, Field { name, whole, value, base });
        }
        visit::visit_expr_struct(self, expr);
    }
}
