//! The simplex method for small dense programs: maximize `goal · x` where `rows · x ≤ 1` and `x ≥ 0`.
//!
//! The origin is feasible, so there is no first phase. A condensed tableau of Dantzig's method, with Bland's rule once it
//! no longer gains, which keeps it from running in circles.

/// Numbers smaller than this are rounding.
const ROUNDING: f64 = 1e-9;

/// The best `x`; `None` where it is unbounded.
pub fn maximize<const N: usize>(goal: &[f64; N], rows: &[[f64; N]]) -> Option<[f64; N]> {
    let count = rows.len();
    // Each row: N coefficients and the right-hand side; the last row is the goal.
    let mut tableau: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().copied().chain([1.0]).collect()).collect();
    tableau.push(goal.iter().copied().chain([0.0]).collect());
    // Which variable each row and column stands for: below N one of `x`, above a slack.
    let mut basic: Vec<usize> = (N..N + count).collect();
    let mut free: Vec<usize> = (0..N).collect();
    let most_steps = 50 * (N + count);
    for step in 0..most_steps {
        let goals = &tableau[count];
        let gains = (0..N).filter(|column| goals[*column] > ROUNDING);
        let column = if step < most_steps / 2 {
            gains.max_by(|a, b| goals[*a].total_cmp(&goals[*b]))
        } else {
            gains.min_by_key(|column| free[*column])
        };
        let Some(column) = column else { break };
        let row = (0..count)
            .filter(|row| tableau[*row][column] > ROUNDING)
            .map(|row| (row, tableau[row][N] / tableau[row][column]))
            .min_by(|a, b| a.1.total_cmp(&b.1).then_with(|| basic[a.0].cmp(&basic[b.0])))?
            .0;
        pivot(&mut tableau, row, column);
        std::mem::swap(&mut basic[row], &mut free[column]);
    }
    let mut best = [0.0; N];
    for (row, variable) in basic.iter().enumerate() {
        if let Some(value) = best.get_mut(*variable) {
            *value = tableau[row][N].max(0.0);
        }
    }
    Some(best)
}

/// Exchanges a basic and a free variable.
fn pivot(tableau: &mut [Vec<f64>], row: usize, column: usize) {
    let pivot = tableau[row][column];
    let line: Vec<f64> = tableau[row].iter().map(|value| value / pivot).collect();
    for (other, values) in tableau.iter_mut().enumerate() {
        let factor = values[column];
        if other == row || factor == 0.0 {
            continue;
        }
        for (value, of_line) in values.iter_mut().zip(&line) {
            *value -= factor * of_line;
        }
        values[column] = -factor / pivot;
    }
    let line_pivot = 1.0 / pivot;
    tableau[row] = line;
    tableau[row][column] = line_pivot;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_corner() {
        // x + 2y ≤ 1, 3x + y ≤ 1: the best of x + y is at (1/5, 2/5).
        let best = maximize(&[1.0, 1.0], &[[1.0, 2.0], [3.0, 1.0]]).expect("bounded");
        assert!((best[0] - 0.2).abs() < 1e-12 && (best[1] - 0.4).abs() < 1e-12, "{best:?}");
        assert_eq!(maximize(&[1.0, 1.0], &[[1.0, 0.0]]), None);
    }
}
