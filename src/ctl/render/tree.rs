//! The order and the indentation of `topology`.

/// One member as the tree needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its name.
    pub name: &'a str,
    /// Leads the cluster.
    pub is_leader: bool,
    /// The member it is told to stream from.
    pub upstream: Option<&'a str>,
}

/// A place in the tree: which node, and how deep. The root has depth 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into the nodes given.
    pub index: usize,
    /// Depth.
    pub depth: usize,
}

/// Depth first, siblings in the order given. A replica hangs below the replica it names, otherwise below the leader;
/// without a leader those are at depth 1 without a root. Members that follow each other in a circle are not reached
/// and come back separately.
pub fn tree(nodes: &[Node<'_>]) -> (Vec<Place>, Vec<usize>) {
    let root = nodes.iter().position(|node| node.is_leader);
    let parent = |index: usize| {
        let node = &nodes[index];
        let named = node.upstream.filter(|upstream| *upstream != node.name);
        let is_it = |other: &Node<'_>| !other.is_leader && Some(other.name) == named;
        nodes.iter().position(is_it).or(root)
    };
    let parents: Vec<Option<usize>> =
        (0..nodes.len()).map(|i| if nodes[i].is_leader { None } else { parent(i) }).collect();
    let mut placed = Vec::new();
    placed.extend(root.map(|index| Place { index, depth: 0 }));
    place(root, 1, nodes, &parents, &mut placed);
    let missing = (0..nodes.len()).filter(|i| placed.iter().all(|place| place.index != *i)).collect();
    (placed, missing)
}

fn place(parent: Option<usize>, depth: usize, nodes: &[Node<'_>], parents: &[Option<usize>], placed: &mut Vec<Place>) {
    for index in 0..nodes.len() {
        if parents[index] == parent && !nodes[index].is_leader {
            placed.push(Place { index, depth });
            place(Some(index), depth + 1, nodes, parents, placed);
        }
    }
}

/// The name with its branch as patronictl draws it.
pub fn indented(name: &str, depth: usize) -> String {
    if depth == 0 { name.to_owned() } else { format!("{}+ {name}", "  ".repeat(depth - 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_left_out_and_reported() {
        let node = |name, upstream| Node { name, is_leader: name == "m", upstream };
        let nodes =
            [node("a", None), node("b", Some("a")), node("g", Some("h")), node("h", Some("g")), node("m", None)];
        let (placed, missing) = tree(&nodes);
        let shape: Vec<(usize, usize)> = placed.iter().map(|p| (p.index, p.depth)).collect();
        assert_eq!(shape, [(4, 0), (0, 1), (1, 2)]);
        assert_eq!(missing, [2, 3]);
    }
}
