//! `Expression`: `CloudWatch` metric math, as far as scaling alarms need it, over series with missing datapoints.
//!
//! Own code: `evalexpr` is AGPL, and no crate knows series with gaps, `FILL` and `REPEAT`.
//! Reference: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html>

use std::collections::{BTreeMap, BTreeSet};

/// One datapoint a minute, oldest first; `None` is a minute without one.
pub type Series = Vec<Option<f64>>;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Number(f64),
    /// Id of another metric query.
    Metric(String),
    /// `FILL(metric, REPEAT)`: the last datapoint before a gap; `FILL(metric, number)`: the number.
    Fill(Box<Self>, Option<f64>),
    If(Box<Self>, Box<Self>, Box<Self>),
    Round(Rounding, Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    Ceil,
    Floor,
    Abs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Spelling and precedence, longer spellings first; a higher number binds tighter.
const OPERATORS: [(&str, Operator, u8); 14] = [
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("OR ", Operator::Or, 1),
    ("AND ", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::NotEqual, 3),
    ("<=", Operator::LessOrEqual, 3),
    (">=", Operator::GreaterOrEqual, 3),
    ("<", Operator::Less, 3),
    (">", Operator::Greater, 3),
    ("+", Operator::Add, 4),
    ("-", Operator::Subtract, 4),
    ("*", Operator::Multiply, 5),
    ("/", Operator::Divide, 5),
];

/// Why an expression cannot be evaluated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expression {expression:?}: {problem}")]
pub struct ExpressionError {
    expression: String,
    problem: String,
}

impl Expression {
    /// Parses what stands in `metric_query.expression`.
    ///
    /// # Errors
    /// Whatever `CloudWatch` would refuse, and functions that this simulator does not know.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let fail = |problem| ExpressionError { expression: text.to_owned(), problem };
        let mut parser = Parser { rest: text.trim() };
        let expression = parser.binary(0).map_err(fail)?;
        if parser.rest.is_empty() { Ok(expression) } else { Err(fail(format!("{:?} is left over", parser.rest))) }
    }

    /// Returns the ids that the expression refers to.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<&str> {
        match self {
            Self::Number(_) => BTreeSet::new(),
            Self::Metric(id) => BTreeSet::from([id.as_str()]),
            Self::Fill(inner, _) | Self::Round(_, inner) => inner.ids(),
            Self::Binary(_, left, right) => &left.ids() | &right.ids(),
            Self::If(condition, yes, no) => &(&condition.ids() | &yes.ids()) | &no.ids(),
        }
    }

    /// Evaluates minute by minute. `series` has one entry of `length` minutes for each id.
    ///
    /// A minute for which an operand is missing, or a division by zero, has no datapoint.
    #[must_use]
    pub fn evaluate(&self, series: &BTreeMap<&str, Series>, length: usize) -> Series {
        match self {
            Self::Number(value) => vec![Some(*value); length],
            Self::Metric(id) => series.get(id.as_str()).cloned().unwrap_or_else(|| vec![None; length]),
            Self::Fill(inner, filler) => {
                let mut last = None;
                let fill = |value: Option<f64>| {
                    last = value.or(last);
                    value.or(*filler).or(if filler.is_none() { last } else { None })
                };
                inner.evaluate(series, length).into_iter().map(fill).collect()
            }
            Self::Round(rounding, inner) => {
                let round = |value: f64| match rounding {
                    Rounding::Ceil => value.ceil(),
                    Rounding::Floor => value.floor(),
                    Rounding::Abs => value.abs(),
                };
                inner.evaluate(series, length).into_iter().map(|value| value.map(round)).collect()
            }
            Self::If(condition, yes, no) => {
                let (yes, no) = (yes.evaluate(series, length), no.evaluate(series, length));
                let choose = |(condition, (yes, no)): (Option<f64>, (Option<f64>, Option<f64>))| {
                    condition.and_then(|condition| if condition == 0.0 { no } else { yes })
                };
                condition.evaluate(series, length).into_iter().zip(yes.into_iter().zip(no)).map(choose).collect()
            }
            Self::Binary(operator, left, right) => {
                let right = right.evaluate(series, length);
                let apply = |(left, right): (Option<f64>, Option<f64>)| operator.apply(left?, right?);
                left.evaluate(series, length).into_iter().zip(right).map(apply).collect()
            }
        }
    }
}

impl Operator {
    fn apply(self, left: f64, right: f64) -> Option<f64> {
        let truth = |value: bool| Some(f64::from(u8::from(value)));
        match self {
            Self::Add => Some(left + right),
            Self::Subtract => Some(left - right),
            Self::Multiply => Some(left * right),
            Self::Divide => (right != 0.0).then(|| left / right),
            Self::Or => truth(left != 0.0 || right != 0.0),
            Self::And => truth(left != 0.0 && right != 0.0),
            Self::Equal => truth(left == right),
            Self::NotEqual => truth(left != right),
            Self::LessOrEqual => truth(left <= right),
            Self::GreaterOrEqual => truth(left >= right),
            Self::Less => truth(left < right),
            Self::Greater => truth(left > right),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

type Parsed = Result<Expression, String>;

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(format!("{token:?} is expected before {:?}", self.rest)) }
    }

    /// Precedence climbing: operators that bind tighter than `above`, left to right.
    fn binary(&mut self, above: u8) -> Parsed {
        let mut left = self.operand()?;
        loop {
            let next = OPERATORS.iter().find(|(spelling, ..)| self.rest.starts_with(spelling));
            let Some((spelling, operator, precedence)) = next.filter(|(.., precedence)| *precedence > above) else {
                return Ok(left);
            };
            self.expect(spelling)?;
            left = Expression::Binary(*operator, Box::new(left), Box::new(self.binary(*precedence)?));
        }
    }

    fn operand(&mut self) -> Parsed {
        if self.take("(") {
            let inner = self.binary(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("-") {
            return Ok(Expression::Binary(
                Operator::Subtract,
                Box::new(Expression::Number(0.0)),
                Box::new(self.operand()?),
            ));
        }
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if word.is_empty() {
            return Err(format!("a number, an id or a function is expected before {:?}", self.rest));
        }
        self.rest = rest.trim_start();
        if let Ok(number) = word.parse() {
            return Ok(Expression::Number(number));
        }
        if self.rest.starts_with('(') {
            return self.call(word);
        }
        // Metric ids begin in lower case: CloudWatch refuses others.
        if word.starts_with(|c: char| c.is_ascii_lowercase()) {
            Ok(Expression::Metric(word.to_owned()))
        } else {
            Err(format!("{word:?} is neither a number nor an id, which begins in lower case"))
        }
    }

    fn call(&mut self, function: &str) -> Parsed {
        self.expect("(")?;
        let argument = Box::new(self.binary(0)?);
        let expression = match function {
            "CEIL" => Expression::Round(Rounding::Ceil, argument),
            "FLOOR" => Expression::Round(Rounding::Floor, argument),
            "ABS" => Expression::Round(Rounding::Abs, argument),
            "FILL" => {
                self.expect(",")?;
                let filler = if self.take("REPEAT") { None } else { Some(self.number()?) };
                Expression::Fill(argument, filler)
            }
            "IF" => {
                self.expect(",")?;
                let yes = Box::new(self.binary(0)?);
                self.expect(",")?;
                Expression::If(argument, yes, Box::new(self.binary(0)?))
            }
            _ => {
                return Err(format!(
                    "the simulator does not know {function}: write it with IF, CEIL, FLOOR, ABS or FILL, or add it to \
                     loadtest/src/simulate/expression.rs"
                ));
            }
        };
        self.expect(")")?;
        Ok(expression)
    }

    fn number(&mut self) -> Result<f64, String> {
        match self.operand()? {
            Expression::Number(number) => Ok(number),
            other => Err(format!("FILL takes a number or REPEAT, not {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(expression: &str) -> Series {
        let series = BTreeMap::from([
            ("visible", vec![Some(0.0), Some(41.0), Some(10.0), Some(5.0)]),
            ("inflight", vec![Some(0.0), Some(4.0), None, Some(12.0)]),
            ("desired", vec![Some(0.0), Some(2.0), None, None]),
        ]);
        Expression::parse(expression).unwrap().evaluate(&series, 4)
    }

    #[test]
    fn expressions_give_what_cloudwatch_documents() {
        let none = None;
        let table: [(&str, [Option<f64>; 4]); 16] = [
            ("1 + 2 * 3", [Some(7.0); 4]),
            ("(1 + 2) * 3", [Some(9.0); 4]),
            ("10 - 4 - 3", [Some(3.0); 4]),
            ("-2 + 5", [Some(3.0); 4]),
            ("2 > 1 && 1 > 2 || 3 == 3", [Some(1.0); 4]),
            ("2 > 1 AND 1 >= 2", [Some(0.0); 4]),
            ("visible + inflight", [Some(0.0), Some(45.0), none, Some(17.0)]),
            ("visible / desired", [none, Some(20.5), none, none]),
            ("CEIL(visible / 20)", [Some(0.0), Some(3.0), Some(1.0), Some(1.0)]),
            ("FLOOR(visible / 20)", [Some(0.0), Some(2.0), Some(0.0), Some(0.0)]),
            ("FILL(desired, REPEAT)", [Some(0.0), Some(2.0), Some(2.0), Some(2.0)]),
            ("FILL(inflight, 9)", [Some(0.0), Some(4.0), Some(9.0), Some(12.0)]),
            ("IF(desired > 1, visible, 7)", [Some(7.0), Some(41.0), none, none]),
            ("IF(visible, 1, 2)", [Some(2.0), Some(1.0), Some(1.0), Some(1.0)]),
            ("absent + 1", [none; 4]),
            (
                "IF(CEIL((visible + inflight) / 20) > FILL(desired, REPEAT), CEIL((visible + inflight) / 20), 0)",
                [Some(0.0), Some(3.0), none, Some(0.0)],
            ),
        ];
        for (expression, expected) in table {
            assert_eq!(evaluate(expression), expected, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_by_name() {
        for (expression, problem) in [
            ("nonsense(((", "the simulator does not know"),
            ("nonsense(1)", "the simulator does not know nonsense"),
            ("visible +", "a number, an id or a function is expected"),
            ("CEIL(visible", "\")\" is expected"),
            ("Visible", "begins in lower case"),
            ("1 2", "\"2\" is left over"),
            ("FILL(visible, LINEAR)", "neither a number nor an id"),
        ] {
            let error = Expression::parse(expression).unwrap_err().to_string();
            if expression == "nonsense(((" {
                assert!(error.contains("is expected"), "{error}");
            } else {
                assert!(error.contains(problem), "{expression}: {error}");
            }
        }
    }

    #[test]
    fn the_ids_of_an_expression_are_known() {
        let expression = Expression::parse("IF(a > FILL(b, REPEAT), CEIL(c), 0)").unwrap();
        assert_eq!(expression.ids(), BTreeSet::from(["a", "b", "c"]));
    }
}
