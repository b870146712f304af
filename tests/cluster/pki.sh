# Sourced. Keys, certificates, tokens and kubeconfigs for a control plane, in the current folder.

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "pki/$1.key" 2>/dev/null; }

new_ca() {
  mkdir -p pki
  new_key ca
  openssl req -x509 -new -key pki/ca.key -subj /CN=seaworthy-test-ca -days 30 -sha256 -out pki/ca.crt
  openssl genrsa -out pki/sa.key 2048 2>/dev/null
  openssl rsa -in pki/sa.key -pubout -out pki/sa.pub 2>/dev/null
  : > pki/tokens.csv
}

sign() { # NAME SUBJECT EXTENSIONS
  new_key "$1"
  openssl req -new -key "pki/$1.key" -subj "$2" -out "pki/$1.csr"
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 30 -sha256 -extfile <(echo "$3") -out "pki/$1.crt" 2>/dev/null
}

kubeconfig() { # FILE SERVER USER GROUP
  local token; token=$(openssl rand -hex 16)
  echo "$token,$3,$3,\"$4\"" >> pki/tokens.csv
  cat > "$1" <<CONF
apiVersion: v1
kind: Config
clusters: [{name: seaworthy, cluster: {server: "$2", certificate-authority-data: $(base64 -w0 pki/ca.crt)}}]
users: [{name: user, user: {token: $token}}]
contexts: [{name: seaworthy, context: {cluster: seaworthy, user: user}}]
current-context: seaworthy
CONF
  chmod 600 "$1"
}
