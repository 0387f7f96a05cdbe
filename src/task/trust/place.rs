//! The place by which a volume is pinned: what its user names.

use luksmith_formats::trust::pin::Place;

use crate::location::Location;

/// The place of a volume and of its detached header. A path is absolute, and symbolic links are not
/// followed: `/dev/disk/by-id/…` is the same place after a restart, and what it leads to is not.
#[must_use]
pub fn place(image: &Location, header: Option<&Location>) -> Place {
    Place::new(text(image), header.map(text))
}

fn text(location: &Location) -> String {
    match location {
        Location::Part { whole, part } => format!("{},{part}", text(whole)),
        Location::Path(path) => match std::path::absolute(path) {
            Ok(path) => Location::Path(path).to_string(),
            Err(_) => location.to_string(),
        },
        _ => location.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_are_one_place() {
        let parse = |text: &str| Location::parse_openable(text.as_ref()).unwrap();
        let of = |text: &str| place(&parse(text), None);
        let here = std::env::current_dir().unwrap();
        let here = here.display();
        assert_eq!(of("disk.img").image, format!("{here}/disk.img"));
        assert_eq!(of("./disk.img"), of("disk.img"));
        assert_eq!(
            of("disk.img,partition=2").image,
            format!("{here}/disk.img,partition=2")
        );
        assert_ne!(of("disk.img,partition=2"), of("disk.img,partition=3"));
        let detached = place(&parse("disk.img"), Some(&parse("disk.header")));
        let words = format!("{here}/disk.img with its header in {here}/disk.header");
        assert_eq!(detached.to_string(), words);
    }
}
