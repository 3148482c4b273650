//! A decision tree over encoded features.

/// A set of category codes; bit 255 is never a code.
pub type Codes = [u64; 4];

/// Whether `code` is in the set.
#[inline]
#[must_use]
pub fn contains(codes: &Codes, code: u8) -> bool {
    codes[usize::from(code >> 6)] >> (code & 63) & 1 == 1
}

/// Where a branch leads: a node, or (negative) the leaf `!child`.
pub type Child = i32;

/// How a node decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// Left if the value is at most this threshold.
    AtMost(f32),
    /// Left if the code is in the tree's set of this position.
    In(u32),
}

/// An inner node. Missing values go left if `missing_left`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// Feature.
    pub feature: u16,
    /// Where missing values go.
    pub missing_left: bool,
    /// The test.
    pub test: Test,
    /// Where a value that passes the test goes.
    pub left: Child,
    /// Where the others go.
    pub right: Child,
}

/// A tree: node 0 is the root; children of a node come after it; a tree without nodes is its only leaf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Inner nodes.
    pub nodes: Vec<Node>,
    /// Sets of codes.
    pub sets: Vec<Codes>,
    /// Values of the leaves.
    pub leaves: Vec<f32>,
}

impl Tree {
    /// The leaf that a row falls into. `value` gives the row's encoded features.
    #[inline]
    #[must_use]
    pub fn leaf(&self, value: impl Fn(usize) -> f32) -> usize {
        let mut at: Child = if self.nodes.is_empty() { !0 } else { 0 };
        while at >= 0 {
            let node = &self.nodes[at as usize];
            let value = value(usize::from(node.feature));
            let left = if value.is_nan() {
                node.missing_left
            } else {
                match node.test {
                    Test::AtMost(threshold) => value <= threshold,
                    Test::In(set) => contains(&self.sets[set as usize], value as u8),
                }
            };
            at = if left { node.left } else { node.right };
        }
        !at as usize
    }

    /// Checks the form: every node and leaf is reached exactly once, children come after their parents, features and sets exist,
    /// thresholds and leaves are finite (a threshold may be infinite, never NaN).
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, categories: &[bool]) -> Result<(), &'static str> {
        if self.leaves.len() != self.nodes.len() + 1 {
            return Err("a tree has one leaf more than nodes");
        }
        if !self.leaves.iter().all(|leaf| leaf.is_finite()) {
            return Err("a leaf's value is not finite");
        }
        let mut reached = (vec![false; self.nodes.len()], vec![false; self.leaves.len()]);
        let mut sets = 0;
        for (i, node) in self.nodes.iter().enumerate() {
            match (categories.get(usize::from(node.feature)), node.test) {
                (Some(false), Test::AtMost(threshold)) if !threshold.is_nan() => {}
                // Sets stand in the order of their nodes, each used once: one form for one tree.
                (Some(true), Test::In(set)) if set as usize == sets => sets += 1,
                _ => return Err("a node tests what its feature is not"),
            }
            for child in [node.left, node.right] {
                let seen = match usize::try_from(child) {
                    Ok(node) if node > i => reached.0.get_mut(node),
                    Ok(_) => None,
                    Err(_) => reached.1.get_mut(!child as usize),
                };
                match seen {
                    Some(seen) if !*seen => *seen = true,
                    _ => return Err("a child is not reached exactly once"),
                }
            }
        }
        if sets != self.sets.len() {
            return Err("a set of codes is not used");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let node = |feature, test, left, right| Node { feature, missing_left: true, test, left, right };
        Tree {
            nodes: vec![node(0, Test::AtMost(1.5), 1, !2), node(1, Test::In(0), !0, !1)],
            sets: vec![[0b101, 0, 0, 0]],
            leaves: vec![1.0, 2.0, 3.0],
        }
    }

    #[test]
    fn a_node_that_leads_to_itself_or_back_is_refused_and_not_walked_for_ever() {
        let mut to_itself = tree();
        to_itself.nodes[1].left = 1;
        let mut back = tree();
        back.nodes[1].left = 0;
        for tree in [to_itself, back] {
            assert_eq!(tree.check(&[false, true]), Err("a child is not reached exactly once"));
        }
        let test = Test::AtMost(0.0);
        let root = Node { feature: 0, missing_left: false, test, left: 0, right: !0 };
        let alone = Tree { nodes: vec![root], sets: Vec::new(), leaves: vec![0.0, 1.0] };
        assert_eq!(alone.check(&[false]), Err("a child is not reached exactly once"));
    }

    #[test]
    fn rows_go_by_threshold_set_and_missing_direction() {
        let leaf = |row: [f32; 2]| tree().leaf(|feature| row[feature]);
        assert_eq!(leaf([1.5, 2.0]), 0);
        assert_eq!(leaf([1.5, 1.0]), 1);
        assert_eq!(leaf([1.6, 0.0]), 2);
        assert_eq!(leaf([f32::NAN, f32::NAN]), 0);
    }

    #[test]
    fn trees_with_loops_orphans_or_wrong_tests_are_refused() {
        assert_eq!(tree().check(&[false, true]), Ok(()));
        let wrong: [fn(&mut Tree); 6] = [
            |tree| tree.nodes[1].left = 0,
            |tree| tree.nodes[1].left = !1,
            |tree| tree.nodes[0].left = 9,
            |tree| tree.leaves[0] = f32::NAN,
            |tree| tree.nodes[0].test = Test::AtMost(f32::NAN),
            |tree| tree.sets.push([0; 4]),
        ];
        for change in wrong {
            let mut tree = tree();
            change(&mut tree);
            assert!(tree.check(&[false, true]).is_err());
        }
        assert!(tree().check(&[true, true]).is_err());
        assert!(tree().check(&[false]).is_err());
    }
}
