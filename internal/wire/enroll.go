package wire

// Where machines become agents, at a listener of its own, and where agents get
// another certificate, beside IngestPath. Both take a POST of an EnrollRequest and
// answer with an Enrolled.
const (
	EnrollPath = "/enroll"
	RenewPath  = "/renew"
)

// MaxEnroll bounds the bytes of a request and of an answer of both.
const MaxEnroll = 16 << 10

// An EnrollRequest asks for a certificate.
type EnrollRequest struct {
	Token string `json:"token,omitempty"` // at EnrollPath; elsewhere the certificate says who asks
	CSR   []byte `json:"csr"`             // PKCS #10, DER; the server takes nothing but the key of it
}

// An Enrolled answers it: with an Error, or all the rest.
type Enrolled struct {
	Certificates string `json:"certificates,omitempty"` // PEM: the agent's, then those between it and the authority
	CA           string `json:"ca,omitempty"`           // PEM
	Error        string `json:"error,omitempty"`
}
