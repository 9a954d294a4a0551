module ddgpu

go 1.24
