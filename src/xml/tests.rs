use super::*;

fn error(text: &str) -> XmlError {
    Xml::parse(text.as_bytes()).expect_err("a refusal")
}

#[test]
fn elements_know_their_names_lines_and_texts() {
    let text = "<?xml version='1.0' encoding='UTF-8'?>\n<!-- a > b -->\n<domain xmlns:q='urn:q'>\n  <name>\n  a<!-- c -->&amp;<![CDATA[<b>]]> </name>\n\
                <q:name/><name second=\"a>'b\"/></domain>";
    let xml = Xml::parse(text.as_bytes()).unwrap();
    let root = xml.root();
    assert_eq!((root.name(), root.line()), ("domain", 3));
    let names: Vec<_> = root.children("name").collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0].text(), "a&<b>");
    assert_eq!((names[0].line(), names[1].line()), (4, 6));
    assert_eq!(names[1].attribute("second"), Some("a>'b"));
    assert_eq!(root.elements().count(), 3);
    assert_eq!(root.descendants().count(), 4);
    assert!(root.at(&["name", "none"]).is_none());
    let other = root.elements().nth(1).unwrap();
    assert_eq!((other.name(), other.namespace()), ("name", Some("urn:q")));
    assert!(!other.is("name"));
}

#[test]
fn document_types_are_refused_whatever_they_hold() {
    let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]>";
    let outside = "<!DOCTYPE d SYSTEM 'file:///etc/passwd'>";
    for text in [laughs, outside, "<!DOCTYPE d>", "<!doctype d>"] {
        let text = format!("\n{text}<d>&b;</d>");
        assert!(matches!(error(&text), XmlError::DocumentType(2)), "{text}");
    }
    assert!(matches!(error("<d>&b;</d>"), XmlError::Syntax(_)));
}

#[test]
fn bounds_hold_and_what_is_within_is_read() {
    let nested = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    let wide = |count: usize| {
        let attributes: Vec<_> = (0..count).map(|n| format!("a{n}='='")).collect();
        format!("<a {}/>", attributes.join(" "))
    };
    let spaces = |count: usize| {
        let each: Vec<_> = (0..count).map(|n| format!("<a xmlns:n{n}='u'/>")).collect();
        format!("<a>{}</a>", each.concat())
    };
    let many = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count));
    let attributes = |count: usize| format!("<a>{}</a>", "<b a='' b=''/>".repeat(count / 2));
    let most_nodes = MOST_NODES as usize;
    for text in [
        nested(MOST_DEPTH),
        wide(MOST_ATTRIBUTES),
        spaces(MOST_NAMESPACES),
        many(most_nodes - 2),
        attributes(most_nodes),
    ] {
        assert!(Xml::parse(text.as_bytes()).is_ok());
    }
    assert!(matches!(error(&nested(MOST_DEPTH + 1)), XmlError::Depth(1)));
    assert!(matches!(
        error(&wide(MOST_ATTRIBUTES + 1)),
        XmlError::Attributes(1)
    ));
    assert!(matches!(
        error(&spaces(MOST_NAMESPACES + 1)),
        XmlError::Namespaces(1)
    ));
    assert!(matches!(error(&many(most_nodes - 1)), XmlError::Nodes));
    assert!(matches!(
        error(&attributes(most_nodes + 2)),
        XmlError::Nodes
    ));
    assert!(matches!(
        error(&" ".repeat(MOST_BYTES + 1)),
        XmlError::Size(_)
    ));
}

#[test]
fn one_text_is_one_document() {
    for name in ["UTF-16", "ISO-8859-1", "UTF-7", ""] {
        let text = format!("<?xml version='1.0' encoding='{name}'?><a/>");
        assert!(matches!(error(&text), XmlError::Encoding), "{name}");
    }
    assert!(matches!(Xml::parse(b"<a>\xe4</a>"), Err(XmlError::Utf8(_))));
    let image = [b"LUKS\xba\xbe", &[0; MOST_BYTES][..]].concat();
    for other in [&image, &b"QFI\xfb\0\0\0\x03"[..], b" name: vm1", b"\0"] {
        assert!(matches!(Xml::parse(other), Err(XmlError::Other)));
    }
    assert!(Xml::parse(b"\xef\xbb\xbf \n<a/>").is_ok());
    assert!(
        Xml::parse("\u{feff}<?xml version='1.0' encoding = \"utf-8\" ?><a/>".as_bytes()).is_ok()
    );
}

#[test]
fn what_is_unclosed_ends() {
    for text in [
        "",
        "<",
        "<a",
        "<a b='",
        "<!--",
        "<a><![CDATA[",
        "<?",
        "<a></b>",
        "<a/>b<a/>",
        "<a/></a>",
    ] {
        assert!(matches!(error(text), XmlError::Syntax(_)), "{text}");
    }
}

#[test]
fn several_documents_are_read_with_the_lines_of_the_whole_text() {
    let text = "\u{feff}<?xml version='1.0'?>\n<a>\n</a>\n<!-- of a --><?of a?>\n\n<?xml version='1.0'?>\n\
                <b><c/>\n</b><d/>\n\u{feff}<?xml version='1.0'?>\n<e/>\n<!-- <f/> -->\n";
    let read: Vec<_> = documents(text.as_bytes())
        .map(|xml| xml.map(|xml| (xml.root().name().to_owned(), xml.root().line())))
        .collect::<Result<_, _>>()
        .unwrap();
    let expected = [("a", 2), ("b", 7), ("d", 8), ("e", 10)];
    assert_eq!(read, expected.map(|(name, line)| (name.to_owned(), line)));
    assert!(matches!(error(text), XmlError::Second(6)));
    let said = error("<a/>\n<a/>").to_string();
    assert_eq!(said, "line 2: a second document begins here");

    // Nothing is read after an error, whose line is that of the whole text.
    for (text, says) in [
        ("<a>\n</a>\n<b>\n</c>\n<d/>", "at 4:1"),
        (
            "<a/>\n<!DOCTYPE b><b/><c/>",
            "line 2: the XML has a document type",
        ),
        (
            "<a/>\n<?xml version='1.0' encoding='UTF-7'?><b/>",
            "another encoding",
        ),
    ] {
        let mut all = documents(text.as_bytes());
        assert_eq!(all.next().unwrap().unwrap().root().name(), "a", "{text}");
        let error = all.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
        assert!(all.next().is_none(), "{text}");
    }
    // The work is proportional to the text.
    let many = "<a/>\n".repeat(MOST_BYTES / 5);
    assert_eq!(documents(many.as_bytes()).count(), MOST_BYTES / 5);
}

#[test]
fn nothing_of_the_text_is_in_debug() {
    let xml = Xml::parse(b"<graphics passwd='hunter2'>hunter2</graphics>").unwrap();
    assert_eq!(
        format!("{xml:?} {:?}", xml.root()),
        "Xml(graphics) Element(graphics, line 1)"
    );
}
