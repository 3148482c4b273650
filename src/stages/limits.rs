//! Limits that stages share: an output must fit into a record of any broker with default settings.

/// Bytes that the items of one output record may have together: well below the 1 MiB that brokers take by default.
pub const OUTPUT_BYTES: usize = crate::domain::limits::MAX_OUTPUT;

/// Cuts items into consecutive groups that each fit into one output record; an item larger than that stands alone.
pub fn split_by_size<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut bytes = 0_usize;
    for item in items {
        let next = size(&item);
        if !group.is_empty() && bytes + next > OUTPUT_BYTES {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += next;
        group.push(item);
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_under_the_limit_and_keep_the_order() {
        let items: Vec<usize> = (0..100).map(|i| i * 1_000).collect();
        let groups = split_by_size(items.clone(), |i| *i);
        assert!(groups.iter().all(|g| g.iter().sum::<usize>() <= OUTPUT_BYTES));
        assert_eq!(groups.concat(), items);
        assert!(split_by_size(Vec::<usize>::new(), |i| *i).is_empty());
    }
}
