package daemons

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Pair is a certificate and its key, as PEM files.
type Pair struct{ Cert, Key string }

// Certificates is an authority made for one test, and what it signed: a server
// on the loopback address and a client.
type Certificates struct {
	CA             string // PEM file
	Server, Client Pair
}

// NewCertificates writes an authority with a server's and a client's pair to
// dir. They are valid for a day.
func NewCertificates(dir string) (*Certificates, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nabla-build test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	c := &Certificates{CA: filepath.Join(dir, "ca.pem")}
	if err := writePEM(c.CA, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	sign := func(serial int64, name string, usage x509.ExtKeyUsage) (Pair, error) {
		p := Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return p, err
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		}, ca, &key.PublicKey, caKey)
		if err != nil {
			return p, err
		}
		if err := writePEM(p.Cert, "CERTIFICATE", der); err != nil {
			return p, err
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return p, err
		}
		return p, writePEM(p.Key, "PRIVATE KEY", der)
	}
	if c.Server, err = sign(2, "server", x509.ExtKeyUsageServerAuth); err != nil {
		return nil, err
	}
	if c.Client, err = sign(3, "client", x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	return c, nil
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
