//! Which items of other files a file names, by its `use` declarations and its paths.
//!
//! A path leads to the file that defines the item, through any number of re-exports. A `mod`
//! declaration and a `pub use` only say where an item is, so they are no dependencies by
//! themselves; a file that uses a name that it re-exports does depend on the file that defines it.
//! A path that ends at a module names no item. Items under `#[cfg(test)]` are left out, since a
//! test may name anything. Calls of methods are not found, so one type can have its `impl` blocks
//! in several files.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::File;

/// The root files of packages, by the folder of their files. The command line is a package of its
/// own, which uses the library by its public name.
const ROOTS: &[(&str, &str)] = &[
    ("src/cli/", "src/main.rs"),
    ("src/", "src/lib.rs"),
    ("formats/src/", "formats/src/lib.rs"),
];

/// The files of the packages, each with what is in scope in it.
pub(crate) struct Names<'a> {
    modules: BTreeMap<Module, Scope<'a>>,
}

/// The root file of a package, and the path of a module below it.
type Module = (&'static str, Vec<String>);

/// One file: what it defines, what it imports, and what it names.
struct Scope<'a> {
    file: &'a str,
    defined: BTreeSet<String>,
    macros: BTreeSet<String>,
    imports: Vec<Import>,
    paths: Vec<Vec<String>>,
    /// Identifiers that may stand for an import.
    mentioned: BTreeSet<String>,
    called_macros: BTreeSet<String>,
}

struct Import {
    name: String,
    path: Vec<String>,
    is_public: bool,
}

impl<'a> Names<'a> {
    pub(crate) fn new(files: &'a [File]) -> Self {
        let scopes = files
            .iter()
            .filter_map(|file| Some((module_of(&file.path)?, Scope::read(file))));
        Self {
            modules: scopes.collect(),
        }
    }

    /// Each file with the files whose items it names, and one such item of each.
    pub(crate) fn dependencies(&self) -> BTreeMap<&'a str, BTreeMap<&'a str, String>> {
        let mut all = BTreeMap::new();
        for (module, scope) in &self.modules {
            let mut named = BTreeMap::new();
            for path in self.items(module, scope) {
                if let Some(file) = self.file_of(module, &path, &mut BTreeSet::new())
                    && file != scope.file
                {
                    named.entry(file).or_insert_with(|| path.join("::"));
                }
            }
            all.insert(scope.file, named);
        }
        all
    }

    /// The paths of a file that are dependencies if they lead to an item.
    fn items(&self, module: &Module, scope: &Scope<'_>) -> Vec<Vec<String>> {
        let used = |import: &&Import| !import.is_public || scope.mentioned.contains(&import.name);
        let imports = scope.imports.iter().filter(used);
        let mut paths: Vec<_> = imports.map(|import| import.path.clone()).collect();
        paths.extend(scope.paths.iter().cloned());
        // A macro is in scope in the modules below its definition without an import.
        for name in scope.called_macros.difference(&scope.macros) {
            let mut above = module.1.clone();
            while above.pop().is_some() {
                let parent = self.modules.get(&(module.0, above.clone()));
                if parent.is_some_and(|parent| parent.macros.contains(name)) {
                    let mut path = vec!["crate".to_owned()];
                    path.extend(above.iter().cloned());
                    path.push(name.clone());
                    paths.push(path);
                }
            }
        }
        paths
    }

    /// The file that defines what `path` means in `module`. `None` for a module, and for an item of
    /// another package.
    fn file_of(
        &self,
        module: &Module,
        path: &[String],
        seen: &mut BTreeSet<(Module, String)>,
    ) -> Option<&'a str> {
        let (root, mut at) = module.clone();
        let mut rest = path;
        while let Some((name, after)) = rest.split_first() {
            let is_first = rest.len() == path.len();
            rest = after;
            match name.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                name => {
                    let mut below = at.clone();
                    below.push(name.to_owned());
                    let is_module = self.modules.contains_key(&(root, below.clone()));
                    // A module and a function may have one name, and only the module leads on.
                    if is_module && !after.is_empty() {
                        at = below;
                        continue;
                    }
                    let here = (root, at);
                    let scope = self.modules.get(&here)?;
                    if scope.defined.contains(name) || scope.macros.contains(name) {
                        return Some(scope.file);
                    }
                    let import = scope.imports.iter().find(|import| import.name == name);
                    if let Some(import) = import
                        && seen.insert((here.clone(), name.to_owned()))
                    {
                        let mut whole = import.path.clone();
                        whole.extend(after.iter().cloned());
                        return self.file_of(&here, &whole, seen);
                    }
                    // What is left of a module's items are those that a macro defines, and `*`.
                    return (!is_first && !is_module && import.is_none()).then_some(scope.file);
                }
            }
        }
        None
    }
}

/// The paths of a file that begin with `crate`, `super` or `self`, from the root of its package on.
/// Those in tests are included, and re-exports are not followed.
pub(crate) fn absolute_paths(file: &File) -> Vec<Vec<String>> {
    let Some((_, module)) = module_of(&file.path) else {
        return Vec::new();
    };
    let scope = Scope::of(&file.path, &tokens(&file.code()));
    let imports = scope.imports.into_iter().map(|import| import.path);
    let mut paths = Vec::new();
    for path in imports.chain(scope.paths) {
        let mut at = module.clone();
        let mut is_absolute = false;
        let mut rest = path.as_slice();
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                _ => break,
            }
            is_absolute = true;
            rest = after;
        }
        if is_absolute {
            at.extend(rest.iter().cloned());
            paths.push(at);
        }
    }
    paths
}

fn module_of(path: &str) -> Option<Module> {
    if let Some((_, root)) = ROOTS.iter().find(|(_, root)| *root == path) {
        return Some((root, Vec::new()));
    }
    let (folder, root) = ROOTS.iter().find(|(folder, _)| path.starts_with(folder))?;
    let package = if *folder == "src/cli/" {
        "src/"
    } else {
        folder
    };
    let inside = path.strip_prefix(package)?.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    Some((root, inside.split('/').map(str::to_owned).collect()))
}

/// What introduces the name of an item.
const DEFINES: &[&str] = &[
    "fn", "struct", "enum", "union", "trait", "type", "const", "static",
];

impl<'a> Scope<'a> {
    fn read(file: &'a File) -> Self {
        let code = file.code();
        Self::of(&file.path, &without_tests(&tokens(&code)))
    }

    fn of(file: &'a str, tokens: &[&str]) -> Self {
        let mut scope = Self {
            file,
            defined: BTreeSet::new(),
            macros: BTreeSet::new(),
            imports: Vec::new(),
            paths: Vec::new(),
            mentioned: BTreeSet::new(),
            called_macros: BTreeSet::new(),
        };
        // The depth of braces, and the depths at which modules inside of the file began.
        let (mut depth, mut inner) = (0, Vec::new());
        let mut at = 0;
        while let Some(token) = tokens.get(at).copied() {
            let before = at.checked_sub(1).map_or("", |before| tokens[before]);
            let next = tokens.get(at + 1).copied().unwrap_or_default();
            match token {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inner.pop_if(|begin| *begin == depth);
                }
                "use" if is_name(next) || next == "{" => {
                    let is_public = before == "pub" || before == ")";
                    let end = end_of(tokens, at);
                    let mut found = Vec::new();
                    tree(&tokens[at + 1..end], &[], &mut found);
                    for (name, path) in found {
                        let path = from_file(&path, inner.len());
                        scope.imports.push(Import {
                            name,
                            path,
                            is_public,
                        });
                    }
                    at = end;
                    continue;
                }
                "mod" if tokens.get(at + 2) == Some(&"{") => {
                    scope.defined.insert(next.to_owned());
                    inner.push(depth);
                }
                "macro_rules" => {
                    let name = tokens.get(at + 2).copied().unwrap_or_default();
                    scope.macros.insert(name.to_owned());
                }
                _ if DEFINES.contains(&token) && depth == inner.len() && is_name(next) => {
                    scope.defined.insert(next.to_owned());
                }
                _ if is_name(token) && before != "::" && before != "." => {
                    let mut path = vec![token.to_owned()];
                    while tokens.get(at + 1) == Some(&"::")
                        && tokens.get(at + 2).is_some_and(|next| is_name(next))
                    {
                        at += 2;
                        path.push(tokens[at].to_owned());
                    }
                    let next = tokens.get(at + 1).copied().unwrap_or_default();
                    let is_type = token.starts_with(|c: char| c.is_uppercase());
                    if is_type || path.len() > 1 || ["(", "!"].contains(&next) {
                        scope.mentioned.insert(token.to_owned());
                    }
                    if next == "!" && path.len() == 1 {
                        scope.called_macros.insert(token.to_owned());
                    }
                    if path.len() > 1 {
                        scope.paths.push(from_file(&path, inner.len()));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        scope
    }
}

/// A path in a module inside of a file, as it would be in the file itself.
fn from_file(path: &[String], inner: usize) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    path[supers.min(inner)..].to_vec()
}

/// The names that a tree of `use` binds, with their paths.
fn tree(tokens: &[&str], prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut path = prefix.to_vec();
    let mut name = None;
    let mut at = 0;
    while let Some(token) = tokens.get(at).copied() {
        match token {
            "::" => {}
            "as" => {
                name = tokens.get(at + 1).map(|name| (*name).to_owned());
                break;
            }
            "{" => {
                let mut rest = &tokens[at + 1..];
                while !rest.is_empty() && rest[0] != "}" {
                    let end = branch(rest);
                    tree(&rest[..end], &path, found);
                    rest = rest.get(end + 1..).unwrap_or_default();
                }
                return;
            }
            // In a group, `self` is the module itself.
            "self" if !path.is_empty() => {}
            _ => path.push(token.to_owned()),
        }
        at += 1;
    }
    if let Some(last) = path.last() {
        found.push((name.unwrap_or_else(|| last.clone()), path));
    }
}

/// Where the first branch of a group ends: at its comma, or at the group's end.
fn branch(tokens: &[&str]) -> usize {
    let mut depth = 0;
    let ends = |token: &&str| {
        match *token {
            "{" => depth += 1,
            "}" if depth == 0 => return true,
            "}" => depth -= 1,
            "," if depth == 0 => return true,
            _ => {}
        }
        false
    };
    tokens.iter().position(ends).unwrap_or(tokens.len())
}

/// The place of the next `;`.
fn end_of(tokens: &[&str], from: usize) -> usize {
    let end = tokens[from..].iter().position(|token| *token == ";");
    end.map_or(tokens.len(), |end| from + end)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and every other character that is no space. Lifetimes are left out.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
        let name = |text: &str| text.find(|c| !part_of_name(c)).unwrap_or(text.len());
        let len = if part_of_name(first) {
            name(rest)
        } else if rest.starts_with("::") {
            2
        } else if first == '\'' {
            1 + name(&rest[1..])
        } else {
            first.len_utf8()
        };
        if first != '\'' && first != '$' {
            tokens.push(&rest[..len]);
        }
        rest = rest[len..].trim_start();
    }
    tokens
}

/// Without the items that only tests have.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut left = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].starts_with(&marker) {
            left.push(tokens[at]);
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += marker.len();
        while let Some(token) = tokens.get(at) {
            at += 1;
            match *token {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && ["}", ";"].contains(token) {
                break;
            }
        }
    }
    left
}
