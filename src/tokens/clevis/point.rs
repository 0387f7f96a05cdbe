//! Points on P-256 and P-521 as JSON Web Keys (RFC 7517, RFC 7518 section 6.2), and their
//! arithmetic.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use luksmith_formats::json::{Value, json};
use p521::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p521::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytes, FieldBytesSize, Group as _, PrimeField as _,
    ProjectivePoint, Scalar,
};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::secret::{self, LockedBytes, SecretError, scrub_stack};

/// A curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P521,
}

/// Calls a function for the type of a curve, and overwrites what it has left on the stack. The
/// function is not inlined, so that this is below the caller's frame.
macro_rules! on {
    ($curve:expr, $function:ident($($argument:expr),*)) => {
        {
            let result = match $curve {
                Curve::P256 => $function::<p256::NistP256>($($argument),*),
                Curve::P521 => $function::<p521::NistP521>($($argument),*),
            };
            scrub_stack();
            result
        }
    };
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P521 => "P-521",
        }
    }

    /// The bytes of a coordinate and of a scalar.
    fn len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P521 => 66,
        }
    }

    /// A random scalar, which is not zero.
    pub(super) fn random(self) -> Result<LockedBytes, SecretError> {
        let mut bytes = LockedBytes::new(self.len())?;
        loop {
            secret::random(&mut bytes)?;
            if self == Self::P521 {
                // The order has 521 bits.
                bytes[0] &= 1;
            }
            if on!(self, is_scalar(&bytes)) {
                return Ok(bytes);
            }
        }
    }

    /// The generator times a scalar. `None` at infinity.
    pub(super) fn times(self, scalar: &[u8]) -> Computed {
        let product = on!(self, of_generator(scalar))?;
        Ok(Point::new(self, product))
    }
}

/// A point that is on its curve, and not at infinity. It may be secret, and is in locked memory.
pub(super) struct Point {
    curve: Curve,
    /// Its form of SEC 1, not compressed: 4, x, y.
    sec1: LockedBytes,
}

/// A point, or `None` at infinity.
type Computed = Result<Option<Point>, SecretError>;

impl Point {
    fn new(curve: Curve, sec1: Option<LockedBytes>) -> Option<Self> {
        let sec1 = sec1.filter(|sec1| sec1.len() == 2 * curve.len() + 1)?;
        Some(Self { curve, sec1 })
    }

    /// The public key that a JWK has, if it has one.
    pub(super) fn of_jwk(jwk: &Value) -> Computed {
        let Some((curve, sec1)) = public_key(jwk) else {
            return Ok(None);
        };
        // The point at infinity has no such form.
        match on!(curve, is_point(&sec1)) {
            true => Ok(Self::new(curve, Some(LockedBytes::copy_from(&sec1)?))),
            false => Ok(None),
        }
    }

    fn coordinate(&self, index: usize) -> &[u8] {
        let len = self.curve.len();
        self.sec1
            .get(1 + index * len..1 + (index + 1) * len)
            .unwrap_or_default()
    }

    /// The coordinate x.
    pub(super) fn x(&self) -> &[u8] {
        self.coordinate(0)
    }

    /// The form of SEC 1.
    pub(super) fn sec1(&self) -> &[u8] {
        &self.sec1
    }

    pub(super) fn curve(&self) -> Curve {
        self.curve
    }

    /// The JWK with the members that a key has to have.
    pub(super) fn jwk(&self) -> Value {
        let text = |index| URL_SAFE_NO_PAD.encode(self.coordinate(index));
        json!({"crv": self.curve.name(), "kty": "EC", "x": text(0), "y": text(1)})
    }

    /// The thumbprints of the key by SHA-256, and by SHA-1 of early versions of clevis.
    pub(super) fn thumbprints(&self) -> [String; 2] {
        // The members in this order, without spaces: RFC 7638.
        let text = self.jwk().to_string();
        [
            URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())),
            URL_SAFE_NO_PAD.encode(Sha1::digest(text.as_bytes())),
        ]
    }

    pub(super) fn plus(&self, other: &Self) -> Computed {
        self.sum(other, false)
    }

    pub(super) fn minus(&self, other: &Self) -> Computed {
        self.sum(other, true)
    }

    fn sum(&self, other: &Self, minus: bool) -> Computed {
        if self.curve != other.curve {
            return Ok(None);
        }
        let sum = on!(self.curve, sum(&self.sec1, &other.sec1, minus))?;
        Ok(Self::new(self.curve, sum))
    }

    pub(super) fn times(&self, scalar: &[u8]) -> Computed {
        let product = on!(self.curve, product(&self.sec1, scalar))?;
        Ok(Self::new(self.curve, product))
    }
}

/// The curve and the form of SEC 1 of a JWK. Whether it is a point of the curve is not checked.
fn public_key(jwk: &Value) -> Option<(Curve, Vec<u8>)> {
    let text = |name| jwk.get(name).and_then(Value::as_str);
    let curve = Curve::named(text("crv")?)?;
    if text("kty")? != "EC" {
        return None;
    }
    let mut sec1 = vec![4];
    for name in ["x", "y"] {
        let coordinate = text(name).filter(|text| text.len() <= 88)?;
        let coordinate = URL_SAFE_NO_PAD.decode(coordinate).ok()?;
        if coordinate.len() != curve.len() {
            return None;
        }
        sec1.extend_from_slice(&coordinate);
    }
    Some((curve, sec1))
}

/// The form of SEC 1 of a point that was computed, or `None` at infinity.
type Sec1 = Result<Option<LockedBytes>, SecretError>;

/// A curve whose points this module reads and writes.
trait Known: CurveArithmetic {
    fn point(sec1: &[u8]) -> Option<ProjectivePoint<Self>>;
    fn sec1(point: ProjectivePoint<Self>) -> Sec1;
}

impl<C> Known for C
where
    C: CurveArithmetic,
    FieldBytesSize<C>: ModulusSize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
{
    fn point(sec1: &[u8]) -> Option<ProjectivePoint<C>> {
        let affine = AffinePoint::<C>::from_sec1_bytes(sec1).ok()?;
        Some(affine.into())
    }

    fn sec1(point: ProjectivePoint<C>) -> Sec1 {
        if bool::from(point.is_identity()) {
            return Ok(None);
        }
        let affine: AffinePoint<C> = point.into();
        let sec1 = LockedBytes::copy_from(affine.to_sec1_point(false).as_bytes())?;
        Ok(Some(sec1))
    }
}

fn scalar<C: CurveArithmetic>(bytes: &[u8]) -> Option<Scalar<C>> {
    let bytes: &FieldBytes<C> = bytes.try_into().ok()?;
    Option::from(Scalar::<C>::from_repr(*bytes))
}

#[inline(never)]
fn is_scalar<C: CurveArithmetic>(bytes: &[u8]) -> bool {
    use p521::elliptic_curve::Field as _;
    scalar::<C>(bytes).is_some_and(|scalar| !bool::from(scalar.is_zero()))
}

#[inline(never)]
fn is_point<C: Known>(sec1: &[u8]) -> bool {
    C::point(sec1).is_some()
}

#[inline(never)]
fn of_generator<C: Known>(by: &[u8]) -> Sec1 {
    match scalar::<C>(by) {
        Some(by) => C::sec1(ProjectivePoint::<C>::generator() * by),
        None => Ok(None),
    }
}

#[inline(never)]
fn product<C: Known>(point: &[u8], by: &[u8]) -> Sec1 {
    match C::point(point).zip(scalar::<C>(by)) {
        Some((point, by)) => C::sec1(point * by),
        None => Ok(None),
    }
}

#[inline(never)]
fn sum<C: Known>(a: &[u8], b: &[u8], minus: bool) -> Sec1 {
    match C::point(a).zip(C::point(b)) {
        Some((a, b)) if minus => C::sec1(a - b),
        Some((a, b)) => C::sec1(a + b),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::stack_tests;

    #[test]
    fn two_sides_agree_on_a_point() {
        for curve in [Curve::P256, Curve::P521] {
            let (a, b) = (curve.random().unwrap(), curve.random().unwrap());
            let point = |computed: Computed| computed.unwrap().unwrap();
            let (pa, pb) = (point(curve.times(&a)), point(curve.times(&b)));
            let (one, other) = (point(pa.times(&b)), point(pb.times(&a)));
            assert_eq!(one.sec1(), other.sec1());
            let back = point(point(pa.plus(&pb)).minus(&pb));
            assert_eq!(back.sec1(), pa.sec1());
            assert!(pa.minus(&pa).unwrap().is_none(), "infinity");
            let again = point(Point::of_jwk(&pa.jwk()));
            assert_eq!(again.sec1(), pa.sec1());
        }
    }

    #[test]
    fn a_thumbprint_is_that_of_jose() {
        // A key of a Tang server, and its thumbprint by `jose jwk thp -a S256`.
        let key = json!({
            "alg": "ECMR", "crv": "P-521", "key_ops": ["deriveKey"], "kty": "EC",
            "x": "Aad4TToC3__GpEUcv5vTyekY44tFWbsnhoOsVCFlDqtSB_kkYmA_7UpmEVdvtgnVoBe0FrcoPFFfBcXUJqPXxFkO",
            "y": "Af5ve5BQoNbxLwbok60b9IfqmcM1v7nAVapgMhroz4LFEGtMQXAhZYIBba7cxzvRJl6KkkrLlnMspTsihxFB3poE",
        });
        let key = Point::of_jwk(&key).unwrap().unwrap();
        let [sha256, _] = key.thumbprints();
        assert_eq!(sha256, "NcsHDBWgVtMdFP9Oq_PXSSItdThTXn-8KzRKk3cGs6s");
    }

    #[test]
    fn nothing_of_a_computed_point_stays_on_the_stack() {
        for curve in [Curve::P256, Curve::P521] {
            let (a, b) = (curve.random().unwrap(), curve.random().unwrap());
            let left = stack_tests::after(|| drop(curve.times(&b)));
            assert!(!holds(&left, &b), "{curve:?}: the scalar");
            let pa = curve.times(&a).unwrap().unwrap();
            let mut product = None;
            let left = stack_tests::after(|| product = pa.times(&b).unwrap());
            let product = product.unwrap();
            for secret in [&b[..], product.x()] {
                assert!(!holds(&left, secret), "{curve:?}: a product");
            }
            let mut sum = None;
            let left = stack_tests::after(|| sum = product.minus(&pa).unwrap());
            for secret in [product.x(), sum.unwrap().x()] {
                assert!(!holds(&left, secret), "{curve:?}: a difference");
            }
        }
    }

    /// Whether a piece of the secret is there, in either order of its bytes.
    fn holds(memory: &[u8], secret: &[u8]) -> bool {
        let reversed: Vec<_> = secret.iter().rev().copied().collect();
        [secret, &reversed].into_iter().any(|secret| {
            let piece = &secret[8..24];
            memory.windows(piece.len()).any(|bytes| bytes == piece)
        })
    }

    #[test]
    fn what_is_no_point_of_the_curve_is_refused() {
        let good = Curve::P256.times(&[1; 32]).unwrap().unwrap().jwk();
        let zeroes = URL_SAFE_NO_PAD.encode([0; 32]);
        for (member, value) in [
            ("crv", "P-521"),
            ("crv", "secp256k1"),
            ("kty", "oct"),
            ("x", ""),
            ("x", "AA"),
            ("x", "not base64!"),
            ("y", &zeroes),
        ] {
            let mut key = good.clone();
            key["alg"] = Value::from("ECMR");
            key[member] = Value::from(value);
            let point = Point::of_jwk(&key).unwrap();
            assert!(point.is_none(), "{member} {value}");
        }
        assert!(Point::of_jwk(&json!([])).unwrap().is_none());
    }
}
